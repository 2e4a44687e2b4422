"""An inference client: one sample of zeros to a model that the agent serves.

Start an agent (`wattfed-agent serve`), then: python examples/predict.py SOCKET digits 1 8 8
"""

import sys

import torch

from wattfed.client.agent import rpc
from wattfed.client.agent.connecting import connect
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.tensors import decode_tensor, encode_tensor

socket, model, *shape = sys.argv[1:]
sample = torch.zeros([int(size) for size in shape])
with connect(socket) as channel:
    request = pb.PredictRequest(model=model, inputs=[encode_tensor(sample)])
    reply = rpc.InferenceStub(channel).Predict(request, timeout=10)
print(*map(decode_tensor, reply.outputs))
