"""Every model of the shipped repository, answered by a real Triton."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.triton

MODELS = ("accumulator", "digits", "echo", "repeat", "text_work")
Client = triton.InferenceServerClient


def tensor(name: str, values: np.ndarray) -> triton.InferInput:
    kinds = {"u1": "UINT8", "i4": "INT32", "u4": "UINT32", "f4": "FP32", "O": "BYTES"}
    kind = kinds[values.dtype.str.lstrip("<>|")]
    given = triton.InferInput(name, list(values.shape), kind)
    given.set_data_from_numpy(values)
    return given


def executions(client: Client, model: str) -> tuple[int, int]:
    """Items and executions so far, when those that were answered just now are counted: two readings agree."""
    before, now = (-1, -1), _executions(client, model)
    while before != now:
        time.sleep(0.25)
        before, now = now, _executions(client, model)
    return now


def _executions(client: Client, model: str) -> tuple[int, int]:
    [stats] = client.get_inference_statistics(model).model_stats
    return stats.inference_count, stats.execution_count


class TestRepository:
    def test_holds_the_five_models_and_all_are_ready(self, client: Client) -> None:
        index = client.get_model_repository_index().models
        assert sorted(model.name for model in index) == list(MODELS)
        assert {model.state for model in index} == {"READY"}

    @pytest.mark.parametrize("model", MODELS)
    def test_configuration_says_what_the_model_is_for(self, repository: Path, model: str) -> None:
        first = (repository / model / "config.pbtxt").read_text().splitlines()[0]
        assert first.startswith("# ")

    def test_weights_are_a_few_kilobytes(self, repository: Path) -> None:
        assert (repository / "digits" / "1" / "weights.npz").stat().st_size < 10_000


class TestDigits:
    def test_recognises_the_samples(self, client: Client, repository: Path) -> None:
        samples = json.loads((repository / "digits" / "samples.json").read_text())
        images = np.array([sample["image"] for sample in samples], np.float32)
        result = client.infer("digits", [tensor("IMAGE", images)])
        assert result.as_numpy("LABEL").ravel().tolist() == [sample["label"] for sample in samples]
        scores = result.as_numpy("SCORES")
        assert scores.shape == (10, 10)
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
        assert scores.argmax(axis=1).tolist() == result.as_numpy("LABEL").ravel().tolist()

    def test_is_right_on_pictures_it_was_not_trained_on(self, client: Client, recipe: ModuleType) -> None:
        _, images, _, labels = recipe.split()
        answers = [
            client.infer("digits", [tensor("IMAGE", part)]).as_numpy("LABEL").ravel()
            for part in np.array_split(images, 8)
        ]
        assert (np.concatenate(answers) == labels).mean() > 0.97

    def test_an_answer_does_not_depend_on_its_batch(self, client: Client) -> None:
        """Requests of different sizes at once: each gets the rows that are its own."""
        rng = np.random.default_rng(3)
        images = rng.integers(0, 17, (64, 64)).astype(np.float32)
        whole = client.infer("digits", [tensor("IMAGE", images)]).as_numpy("SCORES")
        bounds = [(start, start + size) for start, size in ((0, 1), (1, 7), (8, 16), (24, 40))] * 8
        pending = [
            (low, high, async_infer(client, "digits", [tensor("IMAGE", images[low:high])]))
            for low, high in bounds
        ]
        for low, high, answer in pending:
            np.testing.assert_allclose(answer().as_numpy("SCORES"), whole[low:high], rtol=1e-5)

    def test_a_wrong_shape_is_refused(self, client: Client) -> None:
        with pytest.raises(InferenceServerException, match="unexpected shape"):
            client.infer("digits", [tensor("IMAGE", np.zeros((1, 63), np.float32))])


@pytest.mark.slow
class TestDigitsRecipe:
    def test_makes_the_same_file_twice_as_good_as_the_shipped_one(
        self, recipe: ModuleType, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Not equal to the shipped bytes: those depend on the processor's arithmetic."""
        for name in ("one", "two"):
            recipe.main(["--model", str(tmp_path / name)])
        assert "of 360 held-out images right" in capsys.readouterr().out
        one, two = ((tmp_path / name / "1" / "weights.npz").read_bytes() for name in ("one", "two"))
        assert one == two
        _, images, _, labels = recipe.split()
        with np.load(tmp_path / "one" / "1" / "weights.npz") as weights:
            assert (recipe.classify(weights, images) == labels).mean() > 0.97
        shipped = json.loads((repository / "digits" / "samples.json").read_text())
        assert [sample["label"] for sample in shipped] == list(range(10))


class TestEcho:
    @pytest.mark.parametrize("size", [0, 1, 65_537, 8 * 1024 * 1024])
    def test_gives_back_every_byte(self, client: Client, size: int) -> None:
        given = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        result = client.infer("echo", [tensor("INPUT0", given)])
        assert np.array_equal(result.as_numpy("OUTPUT0"), given)

    def test_names_its_replica(self, client: Client, instance: str) -> None:
        wanted = [triton.InferRequestedOutput("REPLICA")]
        result = client.infer("echo", [tensor("INPUT0", np.zeros(1, np.uint8))], outputs=wanted)
        assert result.as_numpy("REPLICA").tolist() == [instance.encode()]
        assert result.as_numpy("OUTPUT0") is None


class TestTextWork:
    def test_counts_tokens_and_names_its_replica(self, client: Client, instance: str) -> None:
        texts = np.array([[b"Hello, world!"], [b""], [b"three more words"]], np.object_)
        result = client.infer("text_work", [tensor("TEXT", texts)])
        assert result.as_numpy("TOKENS").tolist() == [[4], [0], [3]]
        assert result.as_numpy("REPLICA").ravel().tolist() == [instance.encode()] * 3

    def test_takes_at_least_the_time_its_parameters_say(self, client: Client) -> None:
        config = client.get_model_config("text_work").config.parameters
        base_ms = float(config["base_ms"].string_value)
        per_token_us = float(config["per_token_us"].string_value)
        texts = np.array([[b"word " * 100], [b"word " * 50]], np.object_)
        took = client.infer("text_work", [tensor("TEXT", texts)]).as_numpy("COMPUTE_MS")
        assert took.min() >= base_ms + 150 * per_token_us / 1e3 - 0.01

    def test_waiting_requests_are_executed_together(self, client: Client) -> None:
        items, batches = executions(client, "text_work")
        text = tensor("TEXT", np.array([[b"a few words"]], np.object_))
        for answer in [async_infer(client, "text_work", [text]) for _ in range(40)]:
            assert answer().as_numpy("TOKENS").tolist() == [[3]]
        items_after, batches_after = executions(client, "text_work")
        assert items_after - items == 40
        assert batches_after - batches < 20
        sizes = [
            batch.batch_size
            for batch in client.get_inference_statistics("text_work").model_stats[0].batch_stats
        ]
        assert max(sizes) > 1


class TestAccumulator:
    @staticmethod
    def add(client: Client, key: int | str, number: int, *, start: bool = False, end: bool = False) -> int:
        given = tensor("INPUT", np.array([[number]], np.int32))
        result = client.infer("accumulator", [given], sequence_id=key, sequence_start=start, sequence_end=end)
        return int(result.as_numpy("SUM").item())

    def test_adds_up_interleaved_sequences_apart(self, client: Client) -> None:
        assert self.add(client, 101, 5, start=True) == 5
        assert self.add(client, 102, 100, start=True) == 100
        assert self.add(client, 101, -7) == -2
        assert self.add(client, 102, 1, end=True) == 101
        assert self.add(client, 101, 2, end=True) == 0

    def test_names_its_replica(self, client: Client, instance: str) -> None:
        given = tensor("INPUT", np.array([[1]], np.int32))
        result = client.infer("accumulator", [given], sequence_id=100, sequence_start=True, sequence_end=True)
        assert result.as_numpy("REPLICA").tolist() == [[instance.encode()]]

    def test_after_its_end_a_sequence_is_unknown(self, client: Client) -> None:
        self.add(client, 103, 1, start=True, end=True)
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            self.add(client, 103, 1)

    def test_a_second_start_begins_anew(self, client: Client) -> None:
        self.add(client, 104, 50, start=True)
        assert self.add(client, 104, 1, start=True, end=True) == 1

    def test_a_number_and_the_same_as_text_are_two_sequences(self, client: Client) -> None:
        assert self.add(client, 106, 1, start=True) == 1
        assert self.add(client, "106", 10, start=True) == 10
        assert self.add(client, 106, 1, end=True) == 2
        assert self.add(client, "106", 10, end=True) == 20

    def test_sums_wrap_around(self, client: Client) -> None:
        self.add(client, 105, 2**31 - 1, start=True)
        assert self.add(client, 105, 1, end=True) == -(2**31)

    def test_many_at_once(self, address: str) -> None:
        """More sequences than one batch holds, from several clients at the same time."""
        wrong: list[int] = []

        def run(key: int) -> None:
            with Client(address) as own:
                sums = [self.add(own, key, key, start=i == 0, end=i == 9) for i in range(10)]
            if sums != [key * (i + 1) for i in range(10)]:
                wrong.append(key)

        threads = [threading.Thread(target=run, args=(key,)) for key in range(1000, 1020)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestRepeat:
    def test_one_response_per_value_in_order(self, client: Client) -> None:
        values = [7, -1, 2**31 - 1, 0]
        with stream(client) as answers:
            client.async_stream_infer("repeat", [tensor("IN", np.array(values, np.int32))])
            got = [answers() for _ in values]
        assert [int(result.as_numpy("OUT").item()) for result in got] == values
        assert [int(result.as_numpy("IDX").item()) for result in got] == [0, 1, 2, 3]

    def test_an_empty_request_has_no_response_but_the_final_one(self, client: Client) -> None:
        with stream(client) as answers:
            client.async_stream_infer(
                "repeat", [tensor("IN", np.zeros(0, np.int32))], enable_empty_final_response=True
            )
            response = answers().get_response()
        assert response.parameters["triton_final_response"].bool_param
        assert len(response.outputs) == 0

    def test_slow_requests_run_side_by_side(self, client: Client) -> None:
        """The first never ends while the second is answered."""
        with stream(client, cancel=True) as answers:
            client.async_stream_infer(
                "repeat",
                [tensor("IN", np.array([1], np.int32)), tensor("DELAY_MS", np.array([3_600_000], np.uint32))],
                request_id="slow",
            )
            client.async_stream_infer("repeat", [tensor("IN", np.array([2], np.int32))], request_id="quick")
            assert answers().get_response().id == "quick"

    def test_a_unary_call_is_refused(self, client: Client) -> None:
        with pytest.raises(InferenceServerException, match="decoupled"):
            client.infer("repeat", [tensor("IN", np.array([1], np.int32))])


def async_infer(client: Client, model: str, inputs: list[triton.InferInput]):  # type: ignore[no-untyped-def] # tritonclient ships no types
    """Send now; the returned function waits for the answer."""
    done: queue.Queue[tuple[object, object]] = queue.Queue()
    client.async_infer(model, inputs, lambda result, error: done.put((result, error)))
    return partial(take, done)


@contextmanager
def stream(client: Client, *, cancel: bool = False) -> Iterator[partial[triton.InferResult]]:
    done: queue.Queue[tuple[object, object]] = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    try:
        yield partial(take, done)
    finally:
        client.stop_stream(cancel_requests=cancel)


def take(done: "queue.Queue[tuple[object, object]]"):  # type: ignore[no-untyped-def] # see async_infer
    result, error = done.get(timeout=30)
    if error is not None:
        raise error  # type: ignore[misc] # an InferenceServerException
    return result
