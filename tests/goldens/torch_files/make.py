"""Makes the files beside it; needs torch (made with 2.13.0).

python tests/goldens/torch_files/make.py
"""

import collections
import pathlib

import numpy as np
import torch

here = pathlib.Path(__file__).parent
torch.manual_seed(0)
whole = torch.randn(4, 6)
tensors = collections.OrderedDict(
  plain=whole,
  turned=whole.T,
  part=whole[1:3, 2:5],
  parameter=torch.nn.Parameter(torch.randn(3)),
  half=torch.randn(2, 2).half(),
  bfloat=torch.randn(5).bfloat16(),
  ids=torch.arange(7)[None],
  scalar=torch.tensor(2.5),
  empty=torch.zeros(0, 3),
)
torch.save(tensors, here / "pytorch_model.bin")
torch.save(
  {"weight": whole, "settings": torch.device("cpu")}, here / "more.bin"
)
np.savez(
  here / "expected.npz",
  **{
    name: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
    for name, x in tensors.items()
  },
)
