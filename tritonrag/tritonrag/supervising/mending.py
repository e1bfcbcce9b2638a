"""Mending a model of a running Triton: it is loaded anew and asked until it answers, and the judge is told how that ended."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from tritonrag.launcher import RunningServer
from tritonrag.supervising.canaries import Canary, Verdict, canary_of, verdict_of
from tritonrag.supervising.judge import Judge, Stage
from tritonrag.supervising.limits import WatchLimits
from tritonrag.supervising.reloading import can_serve_meanwhile, reload
from tritonrag.supervising.stubs import StubWatch
from tritonrag.supervising.triton_api import TritonApi
from tritonrag_client.errors import RagError

_POLL_S: Final = 0.05
_FAILING_S: Final = 3.0  # that a model may answer with errors until that is what it does


class Mender:
    """Mends one model after the other."""

    def __init__(
        self,
        running: RunningServer,
        stages: Sequence[Stage],
        judge: Judge,
        limits: WatchLimits,
        *,
        api: TritonApi,
        stubs: StubWatch,
        has_gpus: bool,
    ) -> None:
        self._running, self._stages, self._judge, self._limits = running, stages, judge, limits
        self._api, self._stubs, self._has_gpus = api, stubs, has_gpus

    def stages_of(self, model: str) -> list[str]:
        """The stages that don't answer without the model."""
        return [stage.name for stage in self._stages if model in stage.runs]

    async def mend(self, model: str) -> None:
        """Load it anew, until it is served or that has failed. A stage that then answers with errors is no reason for more."""
        try:
            async with asyncio.timeout(self._limits.mend_s):
                await self._reload(model)
                failing = await self._until_served(model)
        except TimeoutError:
            self._judge.mending_failed(model, f"it is not back after {self._limits.mend_s:.0f} s", time.monotonic())
        except RagError as error:
            self._judge.mending_failed(model, "Triton reports an error", time.monotonic(), detail=error.message)
        except OSError as error:
            self._judge.mending_failed(model, error.strerror or "an OSError", time.monotonic(), detail=str(error))
        else:
            self._judge.mended(model, time.monotonic())
            for stage, verdict in failing.items():
                self._judge.answered(stage, verdict.kind, verdict.reason, detail=verdict.detail)

    async def _reload(self, model: str) -> None:
        self._stubs.end(self._stubs.hung(model))
        beside = can_serve_meanwhile(model, self._stubs, has_gpus=self._has_gpus)
        self._stubs.retire(model, time.monotonic())
        await reload(model, self._running.models_dir, self._api, self._stubs, beside=beside)

    async def _until_served(self, model: str) -> dict[str, Verdict]:
        """Until Triton says that everything is ready and the stages behind which the model stands answer; those that answer errors.

        A stage that another model keeps from answering is not waited for.
        """
        for loaded in self._running.models:
            while not await self._api.is_ready(loaded):  # noqa: ASYNC110 - Triton tells it to those alone who ask
                await asyncio.sleep(_POLL_S)
        answers = {stage: await self._until_answered(stage, model) for stage in self.stages_of(model)}
        return {
            stage: verdict for stage, verdict in answers.items() if verdict is not None and verdict.kind == "failing"
        }

    async def _until_answered(self, stage: str, model: str) -> Verdict | None:
        """What the stage answers in the end; None where another model of it is down."""
        until_s = time.monotonic() + _FAILING_S
        while (verdict := await self._ask(canary_of(stage), model)) is not None:
            if verdict.kind == "alive" or (verdict.kind == "failing" and time.monotonic() > until_s):
                return verdict
            await asyncio.sleep(_POLL_S)
        return None

    async def _ask(self, canary: Canary, model: str) -> Verdict | None:
        post = asyncio.ensure_future(self._api.post(canary.path, canary.body))
        try:
            while self._judge.is_whole(canary.stage, but=model):
                if (await asyncio.wait({post}, timeout=_POLL_S))[0]:
                    return verdict_of(*post.result())
            return None
        finally:
            post.cancel()
