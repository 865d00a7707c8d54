"""Errors, cancelled requests and a closed engine end what they must, and nothing that runs beside it."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.deepseek_vl2 import DeepseekVL2
from model.engine import Engine, EngineConfig
from tests import golden
from tests.model.engines import WAIT_S, answers
from tests.model.helpers import ask, engine, image, load


class Faulty(DeepseekVL2):
    """base-like, whose next call of `language` raises `fault` once it is set."""

    fault: Exception | None = None
    entered: threading.Event
    go_on: threading.Event

    @classmethod
    def make(cls) -> "Faulty":
        source = load("base-like")
        model = cls(source.config)
        model.load_state_dict(source.state_dict())
        model.entered, model.go_on = threading.Event(), threading.Event()
        model.go_on.set()
        model.language.register_forward_pre_hook(lambda *_: model.before_step())
        return model.eval().requires_grad_(False)

    def before_step(self) -> None:
        self.entered.set()
        assert self.go_on.wait(WAIT_S)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault


@pytest.fixture
def faulty() -> Faulty:
    return Faulty.make()


def serve(model: DeepseekVL2, **config: int) -> Engine:
    return Engine(model, golden.processor("base-like"), config=EngineConfig(**config))


@pytest.mark.parametrize("fault", [MemoryError("too much"), RuntimeError("shapes differ"), AssertionError("bug")])
def test_error_in_a_step_reaches_the_caller_and_the_engine_lives_on(faulty: Faulty, fault: Exception):
    request = ask("Hello", max_new_tokens=4)
    with serve(faulty) as served:
        before = answers(served.generate([request]))
        faulty.fault = fault
        with pytest.raises(type(fault), match=str(fault)):
            served.generate([request, request])
        assert answers(served.generate([request])) == before


def test_error_in_a_step_spares_the_requests_that_wait(faulty: Faulty):
    with serve(faulty, max_num_sequences=1) as served, ThreadPoolExecutor(2) as pool:
        faulty.go_on.clear()
        first = pool.submit(served.generate, [ask("Hello", max_new_tokens=4)])
        assert faulty.entered.wait(WAIT_S)
        second = pool.submit(served.generate, [ask("Hello", max_new_tokens=4)])
        faulty.fault = MemoryError("too much")
        faulty.go_on.set()
        with pytest.raises(MemoryError):
            first.result(WAIT_S)
        assert second.result(WAIT_S)[0].num_output_tokens == 4


def test_request_cancelled_while_its_step_fails_does_not_stop_the_engine(faulty: Faulty):
    with serve(faulty) as served:
        faulty.go_on.clear()

        async def ask_and_cancel() -> None:
            async with served.open([]) as view:
                asking = asyncio.create_task(view.generate("Hello"))
                await asyncio.to_thread(faulty.entered.wait, WAIT_S)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking

        asyncio.run(ask_and_cancel())
        faulty.fault = MemoryError("too much")
        faulty.go_on.set()
        assert served.generate([ask("Hello", max_new_tokens=2)])[0].num_output_tokens == 2


def test_closing_fails_what_still_runs_and_what_comes_later(faulty: Faulty):
    served = serve(faulty, max_num_sequences=1)
    faulty.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(served.generate, [ask("Hello", max_new_tokens=3000)]) for _ in range(2)]
        assert faulty.entered.wait(WAIT_S)
        faulty.go_on.set()
        served.close()
        for call in running:  # the second one may be late
            with pytest.raises(RuntimeError, match=r"the engine (was|is) closed"):
                call.result(WAIT_S)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        served.generate([ask("Hello")])


def test_closing_again_does_nothing():
    served = engine("base-like")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: served.close(), range(6), timeout=WAIT_S))


def test_dropped_engine_is_collected_and_its_thread_ends():
    before = set(threading.enumerate())
    served = engine("base-like")
    (thread,) = set(threading.enumerate()) - before
    reference = weakref.ref(served)
    del served
    gc.collect()
    assert reference() is None
    thread.join(WAIT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_interpreter_ends_with_an_engine_still_open(busy: bool):
    """The daemon thread must not be inside torch while the interpreter is taken apart."""
    code = f"""if True:
        import threading
        from tests.model.helpers import ask, engine
        served = engine("base-like")
        if {busy}:
            asking = lambda: served.generate([ask("Hello", max_new_tokens=3000)])
            threading.excepthook = lambda args: print(args.exc_value)
            threading.Thread(target=asking, daemon=True).start()
            served.generate([ask("Hello", max_new_tokens=2)])
        print("the end")
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "the end", "")


def test_images_that_cannot_be_encoded_fail_the_opening_alone(faulty: Faulty):
    def refuse(*_: object) -> None:
        raise MemoryError("too many tiles")

    async def open_view(served: Engine) -> None:
        async with served.open([image("tiny")]):
            raise AssertionError("the view should not have opened")

    hook = faulty.vision.register_forward_pre_hook(refuse)
    with serve(faulty) as served:
        with pytest.raises(MemoryError, match="too many tiles"):
            asyncio.run(open_view(served))
        hook.remove()
        assert served.generate([ask("Hello", max_new_tokens=2)])[0].num_output_tokens == 2
