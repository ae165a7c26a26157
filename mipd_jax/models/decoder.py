"""The role decoder: role queries over image tokens, one pre-norm layer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mipd_jax.models import layers
from mipd_jax.models.attention import Attention
from mipd_jax.models.memory import Memory


class RoleDecoder(nn.Module):
  """Self-attention among roles, cross-attention to image tokens, FFN.

  As the reference's `tr_dec` (one layer, 8 heads, pre-norm), batched: the
  reference calls it image by image with the roles that exist, here padded
  roles are masked as keys and are zero in the result.

  `absorbed` is the form of the cross-attention: few roles read many tokens.
  """

  heads: int
  feed_forward: int
  dropout: float
  dtype: jnp.dtype = jnp.float32
  absorbed: bool = True

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "b r d"],
    memory: Memory,
    role_mask: Bool[Array, "b r"],
    *,
    train: bool = False,
  ) -> Float[Array, "b r d"]:
    width = queries.shape[-1]

    def attention(name, absorbed=False):
      return Attention(
        width, self.heads, self.dropout, self.dtype, absorbed, name=name
      )

    def drop(x):
      return nn.Dropout(self.dropout, deterministic=not train)(x)

    x = queries
    y = layers.layer_norm("norm1", self.dtype)(x)
    keys_Bx1xR = role_mask[:, None, :]
    x += drop(attention("self_attention")(y, y, keys_Bx1xR, train=train))
    y = layers.layer_norm("norm2", self.dtype)(x)
    cross_attention = attention("cross_attention", self.absorbed)
    x += drop(cross_attention(y, memory, train=train))
    y = layers.layer_norm("norm3", self.dtype)(x)
    y = layers.xavier_linear(self.feed_forward, self.dtype, "linear1")(y)
    y = drop(layers.gelu(y))
    x += drop(layers.xavier_linear(width, self.dtype, "linear2")(y))
    x = layers.layer_norm("norm_out", self.dtype)(x)
    return jnp.where(role_mask[..., None], x, 0)
