from __future__ import annotations

import math
import multiprocessing
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.own_task import compared
from powerctl.accelerator import Accelerator
from powerctl.errors import TaskFailed
from powerctl.task.loading import load_task
from powerctl.task.training import Evaluation, Interrupted, Training
from tests.powerctl.task.conftest import GIVEN, TASKS, run
from tests.waiting import TIMEOUT_S

ALL = sorted(path.stem for path in TASKS.glob("*.py"))
LOOP = """
import time
import torch
from torch import nn
def make_model(): return nn.Linear(2, 1)
def load_data(): return [torch.ones(3, 2)] * 4
def test(net, loader): return 0.0
def train(net, loader, epochs, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(epochs):
        for x in loader:
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
"""
STEP = (
    LOOP
    + """
del train
def train_step(net, batch): return net(batch).mean()
"""
)


def weights(model):
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


def have_ended():
    """Whether no loop's thread is left, once those about to end have had the time for it."""
    threads = [thread for thread in threading.enumerate() if ".py: " in thread.name]
    for thread in threads:
        thread.join(TIMEOUT_S)
    return not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("name", ALL)
def test_control_changes_nothing(name, settings):
    row = compared(str(TASKS / f"{name}.py"), settings, repeated=1)
    assert row["moved"] and row["minibatches"] == row["planned"]
    assert row["max_abs_dw"] == 0
    assert have_ended()


@pytest.mark.parametrize("name", ALL)
def test_the_users_test_gives_metrics(name, settings, fixture_task, trained):
    task = fixture_task(name)
    model, training = trained(task)
    with training:
        pass
    metrics = Evaluation(task, model, _test_loader(task), GIVEN, seed=3).run()
    assert metrics and all(isinstance(value, float) for value in metrics.values())
    assert all(math.isfinite(value) for value in metrics.values())


def _test_loader(task):
    from powerctl.task.data import load_data

    loaders = load_data(task, GIVEN)
    return loaders.test if loaders.test is not None else loaders.train


@pytest.mark.parametrize("name", ["batchnorm", "files", "stepwise", "stream", "unlabelled"])
def test_the_same_seed_gives_the_same_bits_whatever_ran_between(name, fixture_task, trained):
    task = fixture_task(name)

    def weights_of(seed, between):
        model, training = trained(task, 5, seed)
        with training:
            for _, step in zip(range(2), training.steps(), strict=False):
                step()
                for _ in range(between):
                    torch.rand(3), np.random.normal(), nn.Linear(3, 3)
            for _, step in zip(range(1), training.steps(), strict=False):
                step()
        return weights(model)

    first = weights_of(5, between=0)
    assert torch.equal(first, weights_of(5, between=3))
    assert not torch.equal(first, weights_of(6, between=0))


def test_losses_are_seen_as_the_user_computes_them(fixture_task, trained):
    _, training = trained(fixture_task("quickstart"), 8)
    run(training, 8)
    assert len(training.losses) == training.minibatches == 8
    assert training.returned["loss"] == pytest.approx(np.mean(training.losses))
    assert training.loss == training.returned["loss"]
    for loss, square in zip(training.losses, training.squares, strict=True):
        assert loss**2 < square < 2 * loss**2  # samples differ


def test_a_loop_that_did_not_end_has_the_mean_of_its_losses(fixture_task, trained):
    _, training = trained(fixture_task("quickstart"), 6)
    run(training, 6)
    assert training.returned == {} and training.loss == pytest.approx(np.mean(training.losses))


def test_a_scaled_loss_is_seen_as_it_was_before(fixture_task, trained):
    _, training = trained(fixture_task("amp"), 4)
    run(training, 4)
    assert 0.1 < training.loss < 1  # half of about log 2; GradScaler begins with 65536


def test_a_negative_loss_is_a_loss(fixture_task, trained):
    _, training = trained(fixture_task("unlabelled"), 6)
    assert run(training, 6).loss < 0


def test_a_minibatch_without_a_label_spoils_nothing(fixture_task, trained):
    _, training = trained(fixture_task("transformer"), 3)
    run(training, 3)
    assert math.isnan(training.losses[0]) and math.isfinite(training.loss)


def test_the_mean_that_a_step_returns_is_its_loss(fixture_task, trained):
    _, training = trained(fixture_task("stepwise"), 4)
    run(training, 4)
    assert len(training.losses) == 4 and 0.2 < training.loss < 3


@pytest.mark.parametrize(("minibatches", "epochs"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_loop_gets_the_epochs_that_its_plan_needs(written, trained, minibatches, epochs):
    text = LOOP + (
        "def train(net, loader, epochs):\n"
        "    for _ in range(epochs):\n"
        "        for x in loader: pass\n"
        "    return {'epochs': epochs, 'minibatches': len(loader)}\n"
    )
    _, training = trained(load_task(written(text)), minibatches)
    with training, pytest.raises(Interrupted, match="finished"):
        for step in training.steps():
            step()
    assert training.minibatches == 4 * epochs
    assert training.returned == {"epochs": epochs, "minibatches": 4}


def test_what_a_loop_does_between_epochs_belongs_to_the_last_minibatch(written, trained):
    text = (
        LOOP.replace("    for _ in", "    net.epochs = 0\n    for _ in")
        + "        net.epochs += 1\n"
    )
    model, training = trained(load_task(written(text)), 8)
    seen = []
    with training:
        for _, step in zip(range(8), training.steps(), strict=False):
            step()
            seen.append(model.epochs)
    assert seen == [0, 0, 0, 1, 1, 1, 1, 2]


def test_a_loop_that_ends_early_ends_the_plan(written, trained):
    text = LOOP.replace("            loss.backward()", "            if net.training: return\n")
    _, training = trained(load_task(written(text)), 8)
    with training, pytest.raises(Interrupted, match="finished"):
        for step in training.steps():
            step()
    assert training.minibatches == 1


def test_where_a_plan_ends_the_users_finally_runs_and_the_thread_is_gone(written, trained):
    text = LOOP + (
        "def train(net, loader):\n"
        "    net.closed = False\n"
        "    try:\n"
        "        for x in loader:\n"
        "            try: pass\n"
        "            except Exception: raise SystemExit\n"
        "    finally:\n"
        "        net.closed = True\n"
    )
    model, training = trained(load_task(written(text)), 4)
    run(training, 2)
    assert have_ended() and model.closed


def test_a_loop_that_catches_the_end_is_ended_when_it_asks_again(written, trained):
    text = LOOP + (
        "def train(net, loader, epochs):\n"
        "    net.caught = 0\n"
        "    while net.caught < 3:\n"
        "        try:\n"
        "            for x in loader: pass\n"
        "        except BaseException: net.caught += 1\n"
    )
    model, training = trained(load_task(written(text)), 4)
    run(training, 2)
    assert have_ended() and model.caught == 3


def test_no_worker_of_a_loader_is_left(fixture_task, trained):
    _, training = trained(fixture_task("files"), 5)
    with training:
        next(training.steps())()
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("style", ["train", "train_step"])
def test_what_is_raised_in_the_third_minibatch_comes_through(written, trained, style):
    text = (
        LOOP
        + "seen = []\ndef check():\n    seen.append(1)\n    assert len(seen) < 3, 'no\\nmore'\n"
    )
    if style == "train":
        text += "def train(net, loader):\n    for x in loader: check()\n"
    else:
        text += "del train\ndef train_step(batch):\n    check()\n"
    _, training = trained(load_task(written(text)), 8)
    with training:
        steps = training.steps()
        next(steps)(), next(steps)()
        with pytest.raises(TaskFailed) as failed:
            next(steps)()
    assert str(failed.value) == f"my_task.py: {style} raised AssertionError: no more"
    assert f"in {style}" in failed.value.traceback and have_ended()


@pytest.mark.parametrize("text", [LOOP, STEP], ids=["loop", "step"])
def test_an_error_of_a_data_set_comes_through(written, trained, text):
    text += "def load_data():\n    yield torch.ones(1, 2)\n    raise OSError('disc gone')\n"
    _, training = trained(load_task(written(text)), 8)
    with training, pytest.raises(TaskFailed, match=r"raised OSError: disc gone"):
        for step in training.steps():
            step()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOOP + "def train(net): ...", "train ended without a minibatch"),
        (LOOP + "def load_data(): return []", "train ended without a minibatch"),
        (STEP + "def load_data(): return []", "load_data returned a loader without minibatches"),
    ],
)
def test_a_training_without_a_minibatch_is_an_error(written, trained, text, message):
    _, training = trained(load_task(written(text)), 8)
    with training, pytest.raises(TaskFailed, match=message):
        next(training.steps())()


def test_a_loop_that_never_ends_is_given_up_and_stops(written, trained):
    text = LOOP + (
        "def train(net, loader):\n"
        "    for x in loader:\n"
        "        while True:\n"
        "            net.turns = getattr(net, 'turns', 0) + 1\n"
        "            time.sleep(0.001)\n"
    )
    model, training = trained(load_task(written(text)), 8, limit_s=2.0)
    with training:
        with pytest.raises(TaskFailed) as failed:
            next(training.steps())()
        assert str(failed.value) == (
            "my_task.py: train did not ask for its next minibatch within 2 s: it was given up"
        )
    assert have_ended()
    turns = model.turns
    time.sleep(0.01)
    assert model.turns == turns


def test_a_loop_that_does_not_end_after_its_plan_is_given_up(written, trained):
    text = LOOP + (
        "def train(net, loader):\n"
        "    try:\n        for x in loader: pass\n"
        "    finally:\n        while True: time.sleep(0.001)\n"
    )
    _, training = trained(load_task(written(text)), 8, limit_s=2.0)
    with pytest.raises(TaskFailed, match=r"train did not end within 2 s after its last"):
        run(training, 1)
    assert have_ended()


def test_a_loss_that_spoils_the_model_is_an_error(written, trained):
    text = LOOP.replace("loss = net", "loss = float('nan') * net")
    _, training = trained(load_task(written(text)), 8)
    with training, pytest.raises(TaskFailed) as failed:
        next(training.steps())()
    assert str(failed.value).startswith(
        "my_task.py: train: the loss of minibatch 1 is nan, and the parameter 'weight' is no longer"
    )


def test_minibatches_are_not_read_in_another_thread(written, trained):
    text = LOOP + (
        "import concurrent.futures as futures\n"
        "def train(net, loader):\n"
        "    with futures.ThreadPoolExecutor(1) as pool:\n"
        "        batches = iter(loader)\n"
        "        for _ in range(3): pool.submit(next, batches).result()\n"
    )
    _, training = trained(load_task(written(text)), 8)
    with training, pytest.raises(TaskFailed, match="reads its minibatches in another thread"):
        next(training.steps())()


def test_a_library_still_sees_a_data_loader_with_all_that_it_has(written, trained):
    text = LOOP + (
        "from torch.utils.data import DataLoader\n"
        "class Mine(DataLoader): colour = 'red'\n"
        "def load_data(): return Mine(torch.ones(6, 2), batch_size=2)\n"
        "def train(net, loader):\n"
        "    assert isinstance(loader, Mine) and loader.colour == 'red'\n"
        "    assert (len(loader), loader.batch_size, len(loader.dataset)) == (3, 2, 6)\n"
        "    for x in loader: pass\n"
    )
    _, training = trained(load_task(written(text)), 3)
    assert run(training, 3).minibatches == 3


@pytest.mark.parametrize("name", ["quickstart", "stepwise"])
def test_the_pull_of_fedprox_is_that_of_its_term_in_the_loss(name, fixture_task, trained):
    task = fixture_task(name)
    model, training = trained(task, 6, proximal_mu=0.5)
    run(training, 6)
    plain, training = trained(task, 6)
    run(training, 6)
    with_term = _with_term(task, 0.5)
    expected, training = trained(with_term, 6)
    run(training, 6)
    assert not torch.equal(weights(model), weights(plain))
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=1e-7)


def _with_term(task, mu):
    """The same task, whose loss has the term of FedProx: by the text of its code."""
    import re
    import types

    text = next(iter(task.sources.values())).read_text()
    text = re.sub(
        r"( +)loss\.backward\(\)",
        r"\1first = globals().setdefault('_first', [p.detach().clone() for p in _parameters()])"
        rf"\n\1term = sum(((p - g) ** 2).sum() for p, g in zip(_parameters(), first))"
        rf"\n\1(loss + {mu / 2} * term).backward()",
        text,
    )
    name = "net" if "def train(net" in text else "model"
    text = text.replace("_parameters()", f"{name}.parameters()")
    module = types.ModuleType("with_term")
    exec(text, vars(module))
    return load_task(module, task.settings)


def test_the_pull_of_fedprox_reaches_gradients_that_a_closure_computes(fixture_task, trained):
    task = fixture_task("stream")
    free, training = trained(task, 3)
    start = weights(free).clone()
    run(training, 3)
    pulled, training = trained(task, 3, proximal_mu=1e6)
    run(training, 3)
    assert (weights(pulled) - start).norm() < 0.01 * (weights(free) - start).norm()


def test_a_loop_without_an_optimizer_cannot_have_the_pull_of_fedprox(written, trained):
    text = LOOP.replace("optimizer.step()", "net.weight.data.sub_(net.weight.grad)")
    _, training = trained(load_task(written(text)), 4, proximal_mu=0.1)
    with (
        training,
        pytest.raises(TaskFailed, match=r"without an optimizer of torch\.optim; FedProx"),
    ):
        next(training.steps())()


def test_what_is_watched_is_left_as_it_was(fixture_task, trained):
    before = torch.autograd.backward, torch.amp.GradScaler.scale
    _, training = trained(fixture_task("amp"), 3, proximal_mu=0.1)
    run(training, 3)
    assert (torch.autograd.backward, torch.amp.GradScaler.scale) == before


IN_BFLOAT16 = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2), nn.LayerNorm(2)
    def forward(self, x):
        seen.append(self.layer(x).dtype)
        return {"first": self.layer(x), "rest": [self.norm(x)]}
seen = []
def load_data():
    torch.manual_seed(1)
    return list(torch.rand(2, 3, 2))
def test(net, loader): return float(len([net(x) for x in loader]))
def step(net, x, optimizer):
    optimizer.zero_grad()
    out = net(x)
    loss = (out["first"] - out["rest"][0]).square().mean()
    loss.backward()
    optimizer.step()
    dtypes = {out["first"].dtype, out["rest"][0].dtype, loss.dtype}
    seen.extend(dtypes | {p.grad.dtype for p in net.parameters()} | {(x @ x.T).dtype})
    return loss
"""
BY_STEP = "def train_step(net, batch, optimizer): return step(net, batch, optimizer)"
BY_LOOP = """
def train(net, loader, epochs, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    losses = [step(net, x, optimizer).item() for _ in range(epochs) for x in loader]
    return sum(losses) / len(losses)
"""


@pytest.mark.parametrize("style", [BY_STEP, BY_LOOP])
@pytest.mark.parametrize("is_shared", [True, False])
def test_in_bfloat16_the_forward_pass_is_and_all_else_stays_float32(
    style, is_shared, written, trained
):
    task = load_task(written(IN_BFLOAT16 + style))
    model, training = trained(task, 4, precision="bfloat16", is_shared=is_shared)
    run(training, 4)
    assert task.own.seen == [torch.bfloat16, torch.float32] * 4
    by_hand, _ = trained(task, 4)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=GIVEN["lr"], momentum=0.9)
    for x in task.own.load_data() * 2:
        with torch.autocast("cpu", torch.bfloat16):
            first, rest = by_hand.layer(x), by_hand.norm(x)
        optimizer.zero_grad()
        (first.float() - rest.float()).square().mean().backward()
        optimizer.step()
    assert torch.equal(weights(model), weights(by_hand))
    del task.own.seen[:]
    Evaluation(task, model, task.own.load_data(), GIVEN, seed=7).run()
    assert task.own.seen == [torch.float32] * 2


def test_a_forward_pass_that_raises_leaves_no_precision_behind(written, trained):
    fails = IN_BFLOAT16.replace("return {", "raise ValueError; {") + BY_STEP
    _, training = trained(load_task(written(fails)), precision="bfloat16")
    with training, pytest.raises(TaskFailed, match="raised ValueError"):
        next(training.steps())()
    assert not torch.is_autocast_enabled("cpu")


def test_a_precision_that_no_forward_pass_can_have_is_an_error(written, trained):
    text = LOOP.replace("net(x)", "nn.functional.linear(x, net.weight)")
    _, training = trained(load_task(written(text)), 4, precision="bfloat16")
    with training, pytest.raises(TaskFailed, match=r"the model is not called: call it, model\("):
        next(training.steps())()


def test_a_gpu_without_bfloat16_trains_in_float32_and_says_so(
    fixture_task, trained, monkeypatch, caplog
):
    plain, training = trained(fixture_task("stepwise"), 3)
    run(training, 3)
    monkeypatch.setattr(Accelerator, "has_bfloat16", False)
    model, training = trained(fixture_task("stepwise"), 3, precision="bfloat16")
    run(training, 3)
    assert torch.equal(weights(model), weights(plain))
    assert "cpu has no bfloat16: this trains in float32" in caplog.text


def test_clients_with_one_sample_or_none_are_told_apart_without_an_error(fixture_task, trained):
    task = fixture_task("stepwise")
    _, one = trained(task, 3, given={"partition_id": 1})
    assert run(one, 3).minibatches == 3
    from powerctl.task.data import label_counts, load_data, minibatches_of, num_examples

    none = GIVEN | {"partition_id": 2}
    assert (num_examples(task, none), minibatches_of(load_data(task, none).train)) == (0, 0)
    assert label_counts(task, GIVEN | {"partition_id": 1}).tolist() == [0, 0, 1]
    assert isinstance(one, Training)


def test_a_step_that_never_ends_is_given_up_and_others_train_as_without_a_limit(written, trained):
    text = """
    import time
    import torch
    from torch import nn

    class Net(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)

    def load_data(batch_size):
        return [torch.ones(batch_size, 2)] * 3

    def train_step(model, batch, optimizer, turns=0):
        while turns and len(SEEN) == turns:
            time.sleep(0.001)
        SEEN.append(batch)
        optimizer.zero_grad()
        loss = model(batch).pow(2).sum()
        loss.backward()
        optimizer.step()
        return loss

    def test(net, loader):
        return 0.0

    SEEN = []
    """
    name = written(text)
    free, unlimited = trained(load_task(name), 5)
    bound, limited = trained(load_task(name), 5, limit_s=TIMEOUT_S)
    assert run(limited, 5).losses == run(unlimited, 5).losses
    assert torch.equal(bound.weight, free.weight)
    _, stuck = trained(load_task(name, {"turns": 12}), 5, limit_s=2.0)
    with pytest.raises(TaskFailed, match="train_step did not ask for its next minibatch within"):
        run(stuck, 5)
    assert len(stuck.losses) == 2
