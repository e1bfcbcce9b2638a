"""Triton model `retriever`: questions to the passages that fit them best, one search for all requests of a batch."""

from __future__ import annotations

from functools import partial

import triton_python_backend_utils as pb_utils

from tritonrag_backends.models.door import Door
from tritonrag_backends.models.edge import serve_batch
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.placing import open_placing
from tritonrag_backends.models.searcher import Searcher
from tritonrag_backends.models.searches import read_search
from tritonrag_backends.models.threads import allowed_cores, count_instances, plan_threads
from tritonrag_backends.models.turn import taking_memory
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import RETRIEVER


class TritonPythonModel:
    """A question's tensors to `passage_ids`, `scores`, `passages` [batch, k] and `index_version`, `degraded` [batch, 1]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the live version of the index and begin to follow it; refuse one that another embedding model built."""
        with taking_memory(RETRIEVER, instance_name(args)):
            self._settings = load_settings()
            retriever = self._settings.retriever
            self._searcher = Searcher(
                RETRIEVER,
                args,
                self._settings,
                threads=_threads(retriever.threads, args["model_config"]),
                placing=open_placing(retriever, args, tell=_tell),
            )
            self._door = Door(RETRIEVER, self._settings.limits, args, self._answer)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """Search for what the dynamic batcher gathered."""
        return self._door.serve(requests)

    def finalize(self) -> None:
        """Answer what waits, and stop following the index."""
        self._door.close()
        self._searcher.close()

    def _answer(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        index = self._searcher.current
        return serve_batch(
            requests,
            RETRIEVER,
            partial(read_search, index=index, settings=self._settings),
            partial(self._searcher.search, index),
        )


def _tell(line: str) -> None:
    """Where the index is searched."""
    pb_utils.Logger.log_info(f"{RETRIEVER}: {line}")


def _threads(wanted: int, model_config: str) -> int:
    """FAISS's threads in this instance; warns where all instances' together don't fit the cores."""
    plan = plan_threads(wanted, instances=count_instances(model_config), cores=allowed_cores())
    if plan.too_many:
        pb_utils.Logger.log_warn(
            f"{RETRIEVER}: {plan.instances} instances of {plan.threads} threads each on {plan.cores} cores hold each other up; "
            "lower TRITONRAG_RETRIEVER_THREADS (0 chooses) or TRITONRAG_RETRIEVER_INSTANCES"
        )
    return plan.threads
