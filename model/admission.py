"""Who waits, who runs, and who holds which pages of the cache: admission by free pages, preemption, shared prefixes.

A sequence is admitted when the cache has pages for what it has now; pages for what it generates are found as it grows.
Where none are left, prefixes that no running sequence uses give up theirs, and then the sequence that was admitted
last: both are computed again later. Nothing fails for lack of pages. Knows nothing of the model.
"""

from collections import deque
from collections.abc import Collection, Iterator

from model.kv_cache import PAGE_TOKENS, PagedKVCache, pages_for
from model.sequence import ImagePrefix, Sequence, TokenRun

MAX_OVERTAKEN = 64
"""So many later sequences may be admitted before one that finds no pages; then it is its turn, or long ones would wait
for ever."""
LOOKAHEAD = 64
"""So many waiting sequences are looked at in a step: more would cost time and find little."""
PAGES_AHEAD_SHARE = 4
"""One free page for so many running sequences is left to them at an admission: admitting to preempt is no gain."""


class Admission:
    def __init__(self, cache: PagedKVCache, *, max_num_sequences: int, max_prefix_tokens: int) -> None:
        """`max_prefix_tokens`: prefixes are begun while less than this is missing of those begun before."""
        self.cache = cache
        self.max_num_sequences, self.max_prefix_tokens = max_num_sequences, max_prefix_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        """In the order of their admission."""
        self.prefilling: list[ImagePrefix] = []
        self._cached: dict[ImagePrefix, None] = {}
        """Prefixes that are wholly cached, the one longest not used first."""
        self.num_preemptions = 0
        self.num_shared_tokens = 0
        """Of prompts, found in the cache instead of being computed."""

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running and not self.prefilling

    def admit(self) -> None:
        """Admits what finds room, in the order of arrival as far as it can be held."""
        blocked: list[Sequence] = []
        needed: set[ImagePrefix] = set()
        while self.waiting and len(self.running) < self.max_num_sequences and len(blocked) < LOOKAHEAD:
            sequence = self.waiting.popleft()
            if sequence.prefix is not None:
                needed.add(sequence.prefix)
            if self._try(sequence, needed):
                for one in blocked:
                    one.num_overtaken += 1
                continue
            blocked.append(sequence)
            if sequence.num_overtaken >= MAX_OVERTAKEN:
                break
        self.waiting.extendleft(reversed(blocked))

    def grow(self, sequence: Sequence) -> None:
        """Pages for all its tokens, at the cost of others if need be; where it came last itself, it is preempted."""
        while len(sequence.pages) < pages_for(sequence.num_tokens):
            if self._make_room(1, keep=()):
                sequence.pages += self.cache.allocate(1)
                continue
            youngest = self.running[-1]
            self.preempt(youngest)
            if youngest is sequence:
                return

    def preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue, to be computed again; what it generated it keeps."""
        self.retire(sequence)
        sequence.num_cached_tokens = 0
        self.waiting.appendleft(sequence)
        self.num_preemptions += 1

    def retire(self, sequence: Sequence) -> None:
        """Takes a running sequence's pages back."""
        self.running.remove(sequence)
        self._release(sequence)
        if sequence.prefix is not None:
            sequence.prefix.num_users -= 1
            self._drop_closed(sequence.prefix)

    def finish_prefixes(self) -> None:
        """Offers prefixes that are cached by now to the sequences that wait for them."""
        for prefix in [one for one in self.prefilling if one.is_cached]:
            self.prefilling.remove(prefix)
            self._cached[prefix] = None
            self._drop_closed(prefix)

    def close(self, prefix: ImagePrefix) -> None:
        """No more prompts will come; running ones keep their pages."""
        prefix.is_open = False
        if prefix in self.prefilling:
            self.prefilling.remove(prefix)
            self._give_up(prefix)
        self._drop_closed(prefix)

    def clear_prefilling(self) -> None:
        """Gives up prefixes that are on their way, after a step that raised."""
        for prefix in self.prefilling:
            self._give_up(prefix)
        self.prefilling.clear()

    def _try(self, sequence: Sequence, needed: Collection[ImagePrefix]) -> bool:
        prefix = sequence.prefix
        if prefix is not None and not prefix.is_open:
            sequence.prefix = prefix = None  # its view was closed while it waited: it reads the images by itself
        if prefix is not None and not prefix.is_cached:
            self._begin(prefix, needed)
            return False
        num_shared = 0 if prefix is None else prefix.num_tokens // PAGE_TOKENS
        num_pages = pages_for(sequence.num_tokens) - num_shared
        if not self._make_room(num_pages + len(self.running) // PAGES_AHEAD_SHARE, keep=needed):
            return False
        if prefix is not None:
            self._fork(sequence, prefix)
        sequence.pages += self.cache.allocate(pages_for(sequence.num_tokens) - len(sequence.pages))
        self.running.append(sequence)
        return True

    def _begin(self, prefix: ImagePrefix, needed: Collection[ImagePrefix]) -> None:
        if prefix in self.prefilling:
            return
        if self.prefilling and sum(one.num_missing_tokens for one in self.prefilling) >= self.max_prefix_tokens:
            return
        if self._make_room(pages_for(prefix.num_tokens), keep=needed):
            prefix.pages = self.cache.allocate(pages_for(prefix.num_tokens))
            self.prefilling.append(prefix)

    def _fork(self, sequence: Sequence, prefix: ImagePrefix) -> None:
        """Shares the prefix's whole pages and copies the one that it fills in part."""
        num_whole = prefix.num_tokens // PAGE_TOKENS
        sequence.pages = self.cache.share(prefix.pages[:num_whole])
        if len(prefix.pages) > num_whole:
            sequence.pages += self.cache.allocate(1)
            self.cache.copy_page(prefix.pages[num_whole], sequence.pages[-1])
        sequence.num_cached_tokens = prefix.num_tokens
        prefix.num_users += 1
        self.num_shared_tokens += prefix.num_tokens
        self._cached[prefix] = self._cached.pop(prefix)

    def _make_room(self, num_pages: int, *, keep: Collection[ImagePrefix]) -> bool:
        """Whether so many pages are free, or could be freed by giving up idle prefixes; then they are."""
        idle = [prefix for prefix in self._idle() if prefix not in keep]
        if self.cache.num_free_pages + sum(len(prefix.pages) for prefix in idle) < num_pages:
            return False
        for prefix in idle:
            if self.cache.num_free_pages >= num_pages:
                break
            self._give_up(prefix)
        return True

    def _idle(self) -> Iterator[ImagePrefix]:
        return (prefix for prefix in self._cached if prefix.num_users == 0)

    def _drop_closed(self, prefix: ImagePrefix) -> None:
        if not prefix.is_open and prefix.num_users == 0 and prefix in self._cached:
            self._give_up(prefix)

    def _give_up(self, prefix: ImagePrefix) -> None:
        self._cached.pop(prefix, None)
        self._release(prefix)
        prefix.num_cached_tokens = 0

    def _release(self, run: TokenRun) -> None:
        self.cache.release(run.pages)
        run.pages = []
