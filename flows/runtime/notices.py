"""Who is told how a night ended: an automation of Prefect's server, with a block of Prefect's own that sends messages.

Both have the name of this checkout, lie in the server's database and need no code of ours: whichever server has that
database tells, whoever started it. The address lies there as a secret, which no page of the UI shows.
"""

import logging
import re
from contextlib import suppress
from typing import cast
from uuid import UUID

from prefect import get_client
from prefect.blocks.abstract import NotificationError
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_UI_URL
from pydantic import SecretStr

from flows.runtime import labels
from tasks.harness.errors import StageError

TOLD = ("Promoted", "Refused", "Blocked", "Waiting", "Failed", "Crashed", "TimedOut")  # states of a run, by their name
# The block that hands its address to Apprise as it is, which knows many services beside this one.
Block = SlackWebhook
Labels = dict[str, str | list[str]]
SUBJECT = "{{ flow_run.state.name }}: {{ flow_run.name }}"


def deliver(url: str, subject: str, body: str) -> None:
    """Send one message from this process, as the server will.

    Args:
        url: as Apprise has it; several, separated by spaces.

    Raises:
        StageError: it was not taken.
    """
    block, logger = Block(url=SecretStr(url)), logging.getLogger("apprise")
    propagate, logger.propagate = logger.propagate, False  # what it logs is the reason, and said once
    try:
        with block.raise_on_failure():
            block.notify(body=body, subject=subject)
    except NotificationError as error:
        raise StageError(
            "; ".join(re.findall(r"^\[\w+\]: (.+)$", error.log, re.MULTILINE)) or "it says no more"
        ) from None
    finally:
        logger.propagate = propagate


def told() -> str | None:
    """Return who is told, as `set_up` was given it; None: nobody."""
    with get_client(sync_client=True) as client:
        found, block = _found(client), _block(client)
    if not found:
        return None
    if block is None:
        return f"{found[0].description}, but no longer: the address was removed in the UI"
    return f"{found[0].description}{'' if found[0].enabled else ', but that is paused in the UI'}"


def set_up(url: str, who: str) -> None:
    """Have every run of this checkout's that ends in one of the states TOLD tell that address, and no other.

    Args:
        who: the address without what is secret in it, for people.
    """
    block = cast(UUID, Block(url=SecretStr(url)).save(_block_name(), overwrite=True))
    own: Labels = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{labels.checkout()}"}
    nights: Labels = {"prefect.resource.role": "flow", "prefect.resource.name": "!training"}  # whose person looks on
    wanted = AutomationCore(
        name=_name(),
        description=who,
        enabled=True,  # unless it is said, one that was paused stays so
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in TOLD},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=[own, nights],
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block, subject=SUBJECT, body=_body())],
    )
    with get_client(sync_client=True) as client:
        if found := _found(client):
            client.update_automation(found[0].id, wanted)
        else:
            client.create_automation(wanted)


def remove() -> None:
    """Tell nobody any more."""
    with get_client(sync_client=True) as client:
        for automation in _found(client):
            client.delete_automation(automation.id)
        if block := _block(client):
            client.delete_block_document(block.id)


def _found(client: SyncPrefectClient) -> list[Automation]:
    return client.read_automations_by_name(_name())


def _block(client: SyncPrefectClient) -> BlockDocument | None:
    with suppress(ObjectNotFound):
        return client.read_block_document_by_name(_block_name(), Block.get_block_type_slug(), include_secrets=False)
    return None


def _block_name() -> str:
    return labels.key("notify")


def _name() -> str:
    return f"tell how nights of {labels.checkout()} ended"


def _body() -> str:
    """The sentence of the state, which names the verdict's page, and where the run is in the UI."""
    return "{{ flow_run.state.message }}\n\n" + f"{PREFECT_UI_URL.value()}/runs/flow-run/{{{{ flow_run.id }}}}"
