"""fetch of Node, as an embedder uses it that knows only the server emberd replaces."""

from pathlib import Path

import numpy as np

from tests.clients import nodejs
from tests.clients.table import Client
from tests.serving import Server

CLIENT = Client("native", "fetch (Node)", "built in")
TEXTS = ["first", "第三"]


def test_an_embedder_of_the_old_server_notices_nothing(home: Path) -> None:
    nodejs.install()
    with Server(home) as server:
        said = nodejs.run("cmem.mjs", server.url, *TEXTS)
        expected = server.embed(*TEXTS)["embeddings"]

    cold, after = said["health"]["body"], said["afterwards"]["body"]
    assert (cold["status"], cold["dimensions"], cold["loaded"]) == ("ok", 384, False)
    assert cold["model"] == "mlx-community/all-MiniLM-L6-v2-4bit"
    assert said["embedded"]["ok"]
    assert said["embedded"]["body"]["dimensions"] == 384
    found = np.array(said["embedded"]["body"]["embeddings"], "<f4")
    assert found.tobytes() == np.array(expected, "<f4").tobytes()
    assert (said["empty"]["status"], said["empty"]["body"]["detail"]) == (400, "No texts provided")
    assert said["unloaded"]["body"]["status"] == "unloaded"
    assert after["loaded"] is False
