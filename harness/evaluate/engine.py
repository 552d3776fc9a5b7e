"""Works through requests: several servers, a thread each, one queue, and probes hidden among the requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from harness.evaluate.asked import Request
from harness.evaluate.batches import RequestQueue
from harness.evaluate.logit_memory import TokenScores
from harness.evaluate.model_server import ModelServer
from harness.evaluate.probes import Prober

Collect = Callable[[Request, TokenScores, float], None]
"""Takes in the scores of a request's targets (in the order of `asked.targets_of`) and the seconds of one server that it took, probes
included. Called from the servers' threads, one at a time."""


@dataclass(slots=True)
class Engine:
    """Scores requests on all its servers, until none is left."""

    servers: Sequence[ModelServer]
    prober: Prober
    collect: Collect
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, requests: Sequence[Request]) -> None:
        """Score all requests. Raises VoidRun when a server dies, is silent for too long, or lacks memory even for one row."""
        queue = RequestQueue(requests)
        with ThreadPoolExecutor(len(self.servers)) as pool:
            jobs = [pool.submit(self._work, server, queue) for server in self.servers]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                self._stop.set()
                raise

    def _work(self, server: ModelServer, queue: RequestQueue) -> None:
        """One server's share: whatever is next, until nothing is left or another server has failed."""
        began = time.perf_counter()
        try:
            while (request := queue.take()) is not None and not self._stop.is_set():
                for answer in server.answers(self._from(request, queue)):
                    if not answer.fits:
                        queue.did_not_fit(answer.request)
                        continue
                    found = answer.scores()
                    self.prober.see(server, answer, found.not_finite)
                    began, before = time.perf_counter(), began
                    with self._lock:
                        self.collect(answer.request, found, began - before)
        except BaseException:
            self._stop.set()
            raise

    def _from(self, request: Request | None, queue: RequestQueue) -> Iterator[Request]:
        """This request, and then what is next in the queue."""
        while request is not None and not self._stop.is_set():
            yield request
            request = queue.take()
