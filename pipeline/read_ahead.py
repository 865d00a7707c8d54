"""Many small requests to a store -> their answers in order, several under way at once, few of them held.

A store far away answers one request in tens of milliseconds: thousands of small files must not be asked for one after
another. Knows nothing of what is asked.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

NUM_THREADS = 16
_ITEMS_PER_TASK = 8
"""On a local disk handing over costs as much as reading a small file: a few at a time."""


def in_order(ask: Callable[[_Item], _Answer], items: Iterable[_Item]) -> Iterator[_Answer]:
    """As `map(ask, items)`; at most twice `NUM_THREADS` tasks of a few items are ahead of the caller.

    An error of `ask` is raised in its turn; what was begun by then is waited for, and nothing new is begun.
    """
    remaining, tasks = iter(items), deque[Future[list[_Answer]]]()
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        try:
            while True:
                while len(tasks) < 2 * NUM_THREADS and (some := list(itertools.islice(remaining, _ITEMS_PER_TASK))):
                    tasks.append(threads.submit(lambda some=some: [ask(item) for item in some]))
                if not tasks:
                    return
                yield from tasks.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
