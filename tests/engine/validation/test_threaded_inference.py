"""Pieces of a batch side by side give what the whole batch gives."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from engine.validation.threaded_inference import ThreadedInference, concatenated

CPU = torch.device("cpu")


class Network(nn.Module):
    """Doubles its images, and keeps the sizes and threads of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int, str]] = []

    def forward(self, images, add=0):
        assert torch.is_inference_mode_enabled()
        self.calls.append((len(images), torch.get_num_threads(), threading.current_thread().name))
        return images * 2 + add, [images.flatten(1), (images.sum((1, 2, 3)), None)]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("batch", "threads", "sizes"), [
    (16, 2, [2] * 8), (5, 2, [1, 2, 2]), (3, 2, [1] * 3), (2, 2, [1, 1]), (1, 2, [1]), (3, 4, [3]), (5, 1, [1, 2, 2]),
])  # fmt: skip
def test_pieces(batch, threads, sizes):
    torch.set_num_threads(threads)
    network, images = Network(), torch.rand(batch, 3, 4, 5)
    with ThreadedInference(network, CPU) as inference:
        decoded, (flat, (sums, nothing)) = inference(images, add=1)
    assert torch.equal(decoded, images * 2 + 1)
    assert torch.equal(flat, images.flatten(1))
    assert torch.equal(sums, images.sum((1, 2, 3)))
    assert nothing is None
    assert sorted(size for size, _, _ in network.calls) == sizes
    if len(sizes) > 1:
        assert {count for _, count, _ in network.calls} == {1}  # each piece has one thread
    assert torch.get_num_threads() == threads  # as it was


def test_a_real_network_answers_the_same():
    from models.yolo import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=3).eval()
    images = torch.rand(7, 3, 64, 96)
    torch.set_num_threads(2)
    with ThreadedInference(model, CPU) as inference, torch.inference_mode():
        decoded, raw = inference(images)
        expected, expected_raw = model(images)
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(raw, expected_raw, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_only_what_is_kept_is_joined():
    images = torch.rand(4, 3, 8, 8)
    torch.set_num_threads(2)
    with ThreadedInference(Network(), CPU, keep=lambda answer: answer[0]) as inference:
        assert torch.equal(inference(images), images * 2)
        assert torch.equal(inference(images[:1]), images[:1] * 2)


def test_errors_of_a_piece_reach_the_caller_and_threads_are_restored():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("boom")

    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="boom"), ThreadedInference(Broken(), CPU) as inference:
        inference(torch.rand(4, 3, 8, 8))
    assert torch.get_num_threads() == 2


def test_other_runtimes_and_devices_get_whole_batches():
    network = Network()
    network.pt = False
    with ThreadedInference(network, CPU) as inference:
        inference(torch.rand(6, 3, 4, 4))
    assert [size for size, _, _ in network.calls] == [6]
    assert not ThreadedInference(Network(), torch.device("cuda")).split


def test_only_tensors_can_be_joined():
    with pytest.raises(AssertionError, match="cannot join str"):
        concatenated(["a", "b"])
