"""Changes the default in the config file and in the running server, or in neither."""

from contextlib import suppress
from dataclasses import dataclass

from emberd.client import requests
from emberd.client.clients import Client
from emberd.client.finding import require_file
from emberd.config.edit import Edit
from emberd.config.load import Config
from emberd.errors import ConfigError, EmberdError


@dataclass(frozen=True, slots=True)
class Switch:
    """Writes the file and has the server reload it, as one step that can be undone.

    Callers with more to do in the same step (migrating stores) do it before `commit`, and call
    `rollback` if something fails after it. `server` is None if none is running.
    """

    edit: Edit
    server: Client | None
    name: str

    @classmethod
    def to(cls, config: Config, name: str, server: Client | None) -> "Switch":
        """Plan to make the model `name` the default. Raises ConfigError if it cannot be edited."""
        return cls(Edit.of_default(config.homes.config, name), server, name)

    @property
    def changes_file(self) -> bool:
        """Whether this changes the config file at all."""
        return self.edit.before != self.edit.after

    def commit(self) -> None:
        """Write the file and wait until the running server uses the model; undo both on failure.

        Raises:
            ConfigError: the file changed in the meantime or cannot be written.
            EmberdError: the server refused; the file is as it was.
        """
        written = False
        try:
            self.edit.commit()
            written = True
            if self.server is not None:
                self._reload(self.server)
        except BaseException as error:  # an interrupt, too
            if self.edit.is_in_force():
                self.edit.rollback()
                if self.server is not None:
                    with suppress(
                        EmberdError
                    ):  # the server may be what failed; it also watches the file
                        self.server.send(requests.reload())
            elif written and isinstance(error, EmberdError):
                raise ConfigError(
                    f"{error.message} {self.edit.file} was edited in the meantime and was left"
                    f" alone, so its default may be {self.name} now.",
                    hint="Set the default you want in the file, then run this again.",
                ) from None
            raise

    def _reload(self, server: Client) -> None:
        default = server.send(requests.reload())["default"]
        if default["name"] != self.name:
            raise ConfigError(
                f"The server at {server.address} still uses {default['name']}, which is set by"
                f" {default['origin']}.",
                hint="Change it there, or start the server without it.",
            )

    def rollback(self) -> None:
        """Restore the exact bytes of the file and reload; does no harm if nothing was done.

        Raises:
            ConfigError: the file has been edited since, and was left alone.
        """
        self.edit.rollback()
        if self.server is not None:
            self.server.send(requests.reload())


def default_in_use(config: Config, server: Client | None) -> str | None:
    """Return the default that the server uses; None if no server is running.

    Raises:
        ConfigError: changing the config file would have no effect, because a variable or a flag
            sets the default, or because the server reads another file.
    """
    origin = config.origins["default"]
    if origin.startswith("$"):
        raise ConfigError(
            f"{origin} sets the default to {config.settings.default} and overrides the config"
            " file.",
            hint=f"Unset {origin[1:]}, or change it.",
        )
    if server is None:
        return None
    answer = server.send(requests.preview_reload())
    default = answer["default"]
    require_file(server.address, answer["file"], config.homes.config)
    if default["origin"].startswith(("$", "--")):
        raise ConfigError(
            f"The server at {server.address} was started with {default['origin']} set to"
            f" {default['name']}, which overrides the config file.",
            hint=f"Start it without {default['origin'].lstrip('$')}, then run this again.",
        )
    return str(default["name"])
