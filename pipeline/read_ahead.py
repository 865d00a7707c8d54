"""Many small requests to a store -> their answers in order, several under way at once, few of them held.

A store far away answers one request in tens of milliseconds: thousands of small files must not be asked for one after
another. Knows nothing of what is asked.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

NUM_THREADS = 16
ITEMS_PER_TASK = 8
"""On a local disk handing over costs as much as reading a small file: a few at a time."""


def in_order(
    ask: Callable[[_Item], _Answer],
    items: Iterable[_Item],
    *,
    num_threads: int = NUM_THREADS,
    items_per_task: int = ITEMS_PER_TASK,
) -> Generator[_Answer, None, None]:
    """As `map(ask, items)`; at most twice `num_threads` tasks are ahead of the caller.

    An error of `ask` is raised in its turn; what was begun by then is waited for, and nothing new is begun; so it is
    when the caller closes the generator.
    """
    remaining, tasks = iter(items), deque[Future[list[_Answer]]]()

    def ask_all(some: Sequence[_Item]) -> list[_Answer]:
        return [ask(item) for item in some]

    with ThreadPoolExecutor(num_threads) as threads:
        try:
            while True:
                while len(tasks) < 2 * num_threads and (some := list(itertools.islice(remaining, items_per_task))):
                    tasks.append(threads.submit(ask_all, some))
                if not tasks:
                    return
                yield from tasks.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
