"""joblib on a cluster: a backend for `joblib.Parallel` that hands its batches to a `RaftExecutor`.

Copy `RaftBackend` and the line that registers it, or import this file. It needs joblib 1.5 or later; the nodes need
joblib too, for what they are sent are joblib's own batches.
"""

from math import sqrt

import joblib

from raftctl import Client, RaftExecutor


class RaftBackend(joblib.parallel.ParallelBackendBase):
    """Runs batches of joblib's on the cluster. Arguments are those of `RaftExecutor`, such as ``cluster``."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def effective_n_jobs(self, n_jobs):
        """How many run at a time: as many as asked for, or as many slots as the cluster has."""
        if n_jobs > 0:
            return n_jobs
        with Client(self.backend_kwargs.get("cluster")) as client:
            return max(1, sum(node.slots for node in client.status().nodes if node.health == "up"))

    def configure(self, n_jobs=1, parallel=None, **hints):
        """Begins a call of `Parallel`. Hints are for pools on one machine: where their memory is, and the like."""
        self.parallel = parallel
        self._executor = RaftExecutor(**self.backend_kwargs)
        return self.effective_n_jobs(n_jobs)

    def submit(self, func, callback=None):
        """Submits one batch."""
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future):
        """What the batch returned, or raises what it raised."""
        return future.result()

    def abort_everything(self, ensure_ready=True):
        """A batch has failed: the others are not needed."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if ensure_ready:
            self.configure(parallel=self.parallel)

    def terminate(self):
        """Ends a call of `Parallel`."""
        self._executor.shutdown(wait=False)


joblib.register_parallel_backend("raft", RaftBackend)

if __name__ == "__main__":
    with joblib.parallel_config(backend="raft"):
        print(joblib.Parallel(n_jobs=4)(joblib.delayed(sqrt)(n * n) for n in range(10)))
