"""What an agent serves and trains on an accelerator: each format of model, hot swap, rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from powerctl.accelerator import Accelerator
from tests.client.agent.conftest import TIMEOUT_S
from tests.client.agent.test_rounds import rounds, trained
from tests.tasks import load_task
from wattfed.client.agent import rpc
from wattfed.client.agent.model_files import EXPORT, TORCHSCRIPT, read_program, run_module
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.served_models import read_model
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tensors import decode_tensor, encode_tensor
from wattfed.client.worker.model_arrays import arrays_of

__all__ = ["rounds"]  # the fixture


class Places(torch.nn.Module):
    """Has a parameter, a buffer, a constant, and makes a tensor where its input is."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.nn.Linear(4, 3)
        self.register_buffer("shift", torch.ones(4), persistent=False)
        self.constant = torch.full((4,), 2.0)  # which is moved with the rest of a file

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(4, device=x.device, dtype=x.dtype)
        return self.out(x * self.constant + self.shift + 0 * places)


def written(folder, form):
    """A model's file in a format, and what is read of it."""
    torch.manual_seed(3)
    model, path = Places().eval(), folder / "model.bin"
    if form == "state-dict":
        model = load_task("digits").model().eval()
        torch.save(model.state_dict(), path)
        return model, (1, 8, 8), ModelFile("m", str(path), task="digits")
    x = torch.zeros(2, 4)
    if form == "torchscript":
        torch.jit.script(model).save(str(path))
        return model, (4,), ModelFile("m", str(path), inputs="4")
    path = folder / "model.pt2"
    dynamic = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=dynamic), path)
    return model, (4,), ModelFile("m", str(path))


FORMATS = ["torchscript", "export", "state-dict"]


def batches(file):
    """What a process of its own does with a file, or the agent with a state dict, done here."""
    there = Accelerator.here()
    if file.task:
        return read_model(file).host.run
    form = EXPORT if file.path.endswith(".pt2") else TORCHSCRIPT
    with open(file.path, "rb") as opened:
        module = read_program(opened, form, there).module
    return lambda batch: run_module(module, batch, there)


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_of_each_format_is_placed_there_and_answers_from_the_cpu(
    form, tmp_path, accelerator
):
    model, shape, file = written(tmp_path, form)
    answer = batches(file)
    del accelerator.into[:], accelerator.out[:]
    x = torch.randn(3, *shape)
    (answers,) = answer([x])
    assert accelerator.into == [x.nbytes] and len(accelerator.out) == 1  # a batch, not samples
    assert type(answers) is torch.Tensor
    if form != "torchscript":  # whose loader puts no numbers there
        torch.testing.assert_close(answers, model(x))


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMATS)
def test_a_model_of_each_format_is_served_on_a_gpu(form, tmp_path):
    model, shape, file = written(tmp_path, form)
    served, x = read_model(file), torch.randn(3, *shape)
    assert served.host.isolation == ("agent" if form == "state-dict" else "sandbox")
    answers = torch.stack([answer for (answer,) in served.predict([(one,) for one in x])])
    torch.testing.assert_close(answers, model(x), rtol=1e-3, atol=1e-3)


def test_a_round_swaps_the_global_model_in_trains_and_frees_the_old_one(
    start, settings, tmp_path, accelerator
):
    model = load_task("digits").model()
    torch.save(model.state_dict(), tmp_path / "digits.pt")
    file = ModelFile("digits", str(tmp_path / "digits.pt"), task="digits", latency_s=5.0)
    agent = start(settings, model=(file,))
    with agent.channel() as channel:
        stub, inference = rpc.RoundsStub(channel), rpc.InferenceStub(channel)
        report, arrays = trained(stub)
        before = accelerator.memory
        again, _ = trained(stub, server_round=2, arrays=ArrayRecord(model.state_dict()))
        assert report.minibatches == again.minibatches == 12
        assert accelerator.memory <= before
        x = torch.randn(1, 8, 8)
        asked = pb.PredictRequest(model="digits", inputs=[encode_tensor(x)])
        reply = inference.Predict(asked, timeout=TIMEOUT_S)
    assert reply.model_version == 3
    np.testing.assert_allclose(
        decode_tensor(reply.outputs[0]), model.eval()(x[None])[0].detach(), rtol=1e-5, atol=1e-6
    )
    assert arrays.keys() == arrays_of(model).keys()
