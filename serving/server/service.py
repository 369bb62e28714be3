"""The model that answers, and the newer one that takes its place between two requests."""

import asyncio
import time
from pathlib import Path

from serving import champion
from serving.champion import Champion
from serving.server.batcher import Batcher
from serving.server.limits import Limits
from serving.server.log import complain, say
from serving.server.metrics import Metrics
from serving.server.served import Refused, Served, open_champion
from serving.session import SessionError

LOOK_S = 1  # between two looks at champion.json
AGAIN_S = 60  # until a champion that was refused is tried once more, though its pointer has not changed


class Service:
    """What the routes answer from. Made and used on the event loop."""

    def __init__(self, model: Served, limits: Limits) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.batcher = Batcher(limits, self.metrics)
        self.stopping = False
        self.use(model)

    @property
    def refused(self) -> str | None:
        return self.metrics.refused

    def use(self, model: Served) -> None:
        """Have a model answer from the next request on; those that wait are answered by the one that they came for."""
        self.model = model
        self.metrics.model = model.about()
        self.metrics.refused = None

    def refuse(self, why: str) -> None:
        """Keep the model that answers, and say so in readiness and metrics."""
        if why != self.refused:
            self.metrics.swaps["refused"] += 1
        self.metrics.refused = why


async def follow(service: Service, root: Path, serving: Champion | None, provider: str) -> None:
    """Serve the champion of a registry from the moment that it changes, for ever.

    Args:
        serving: what the service answers with now; None: a file that no promotion has judged.
    """
    refused, again_at = None, 0.0
    while True:
        await asyncio.sleep(LOOK_S)
        now = time.monotonic()
        found = serving
        try:
            found = await asyncio.to_thread(_look, root)
            if found in (None, serving):
                service.metrics.refused = None  # what was refused is gone again
            elif found != refused or now >= again_at:
                service.use(await asyncio.to_thread(open_champion, root, found, provider, service.limits.batch))
                service.metrics.swaps["switched"] += 1
                say(f"{service.model} answers now")
                serving = found
        except Exception as error:  # whatever it is, the model that answers goes on
            refused, again_at = found, now + AGAIN_S
            why = str(error) if isinstance(error, Refused) else "the new model cannot be opened"
            if why != service.refused:
                cause = error.__cause__ if isinstance(error, Refused) else error
                complain(f"refused: {why}{f' ({cause})' if cause else ''}")
            service.refuse(why)


def _look(root: Path) -> Champion | None:
    try:
        return champion.read(root)
    except SessionError as error:
        raise Refused("the registry's champion.json is not what a promotion wrote") from error
