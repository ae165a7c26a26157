"""Makes two tiny random checkpoints with PyTorch, and what they answer.

    pip install torch==2.13.0 transformers==4.57.6
    python tests/goldens/language_model/make.py

GPT-2 stores linear layers untransposed and ties its head; T5 has an encoder,
relative positions and a head of its own. `expected.json` holds the logits of
the first new token and greedy continuations.
"""

import json
import pathlib

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
WORDS = [*SPECIAL, *(f"w{i}" for i in range(20)), "yes", "no"]
SIZE = len(WORDS) + 3  # more embeddings than tokens, as in T5
PROMPTS = ["w3 w1 w4 w1 w5 w9", "w2 w6 w5 w3 w5 w8 w9 w7 w9 w3 w2 w3", "w8"]
IDS = {
  "vocab_size": SIZE,
  "pad_token_id": 0,
  "bos_token_id": 1,
  "eos_token_id": 2,
}


def tokenizer(end: bool) -> transformers.PreTrainedTokenizerFast:
  inner = Tokenizer(
    models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>")
  )
  inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  inner.add_special_tokens(SPECIAL)
  if end:
    inner.post_processor = processors.TemplateProcessing(
      single="$A </s>", special_tokens=[("</s>", 2)]
    )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=inner,
    pad_token="<pad>",
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
  )


def networks() -> dict[str, torch.nn.Module]:
  gpt2 = transformers.GPT2Config(
    **IDS, n_embd=16, n_layer=2, n_head=2, n_positions=64
  )
  t5 = transformers.T5Config(
    **IDS,
    d_model=16,
    d_kv=8,
    d_ff=24,
    num_layers=2,
    num_heads=2,
    decoder_start_token_id=0,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
  )
  return {
    "gpt2": transformers.GPT2LMHeadModel(gpt2),
    "t5": transformers.T5ForConditionalGeneration(t5),
  }


@torch.no_grad()
def answers(network, words) -> list[dict]:
  found = []
  for prompt in PROMPTS:
    ids = words(prompt, return_tensors="pt").input_ids
    if network.config.is_encoder_decoder:
      begin = torch.tensor([[network.config.decoder_start_token_id]])
      logits = network(input_ids=ids, decoder_input_ids=begin).logits[0, -1]
    else:
      logits = network(ids).logits[0, -1]
    out = network.generate(
      ids,
      attention_mask=torch.ones_like(ids),
      do_sample=False,
      max_new_tokens=8,
      suppress_tokens=list(range(len(WORDS), SIZE)),
    )
    new = (
      out[0] if network.config.is_encoder_decoder else out[0, ids.shape[1] :]
    )
    found.append(
      {
        "prompt": prompt,
        "logits": [round(x, 6) for x in logits.tolist()],
        "greedy": words.decode(new, skip_special_tokens=True),
      }
    )
  return found


def main() -> None:
  torch.manual_seed(0)
  expected = {}
  for name, network in networks().items():
    for parameter in network.parameters():
      parameter.data += 0.3 * torch.randn_like(parameter)
    network.eval().save_pretrained(HERE / name)
    words = tokenizer(network.config.is_encoder_decoder)
    words.save_pretrained(HERE / name)
    expected[name] = answers(network, words)
  (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
  main()
