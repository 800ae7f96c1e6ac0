"""Finishes or undoes what a stopped `use --migrate` left, so that files and server agree."""

from dataclasses import dataclass, field

from emberd.client import clients, requests
from emberd.config.load import Config
from emberd.errors import StoreError


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done, in words, and what is wrong with stores that cannot be read, by name."""

    done: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def recover(config: Config, *, strict: bool) -> Recovery:
    """Recover every store that follows the default; if there was one, have the server reload.

    Raises:
        StoreError: `strict`, and a store cannot be read.
    """
    found = Recovery()
    if not config.settings.stores:
        return found
    from emberd.migrate import known, recovery  # their libraries are not needed without a store

    for name in known.followers(config):
        try:
            done = recovery.recover(known.find(config, name), config.homes.state)
        except StoreError as error:
            if strict:
                with known.naming(name):
                    raise
            found.unreadable[name] = error.message
            continue
        if done:
            found.done.append(done)
    server = clients.find(config) if found.done else None
    if server is not None:
        server.send(requests.reload())
    return found
