"""Turns the errors of the Hub's client into ones that say what went wrong and what to do."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emberd.errors import SourceError
from emberd.registry.spec import Source

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

FULL = (errno.ENOSPC, errno.EDQUOT)


def endpoint() -> str:
    """Return the Hub's address for messages, without any password in it."""
    from huggingface_hub import constants

    return re.sub("//[^/]*@", "//", constants.ENDPOINT)


@contextmanager
def explained(source: Source, hub: Path) -> Iterator[None]:
    """Turn what the library raises into a `SourceError` whose message names the cause."""
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except HfHubHTTPError as error:
        raise SourceError(_explain_refusal(error, source)) from None
    except OfflineModeIsEnabled:
        raise SourceError("HF_HUB_OFFLINE forbids asking the Hub") from None
    except (httpx2.HTTPError, LocalEntryNotFoundError, TimeoutError) as error:
        raise SourceError(f"the Hub cannot be reached ({type(error).__name__})") from None
    except HFValidationError as error:
        raise SourceError(f"the Hub does not allow such a name: {error}") from None
    except ValueError:  # the page of a portal or proxy instead of an answer
        raise SourceError("something other than the Hub answered") from None
    except OSError as error:
        if error.errno in FULL:
            why = f"the disk that holds {hub} is full; what arrived is kept"
            raise SourceError(why) from None
        why = error.strerror or str(error)[:200] or type(error).__name__
        raise SourceError(f"the download failed: {why}") from None


def _explain_refusal(error: "HfHubHTTPError", source: Source) -> str:
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        terms = f"accept its terms at {endpoint()}/{source.hf}"
        return f"the repository is gated ({terms} and set HF_TOKEN to a token of that account)"
    if isinstance(error, RevisionNotFoundError):
        return f"the repository has no revision {source.revision or 'main'!r}"
    if isinstance(error, RepositoryNotFoundError) or (status == 401 and not get_token()):
        seen = "HF_TOKEN may not see it" if get_token() else "set HF_TOKEN"
        return f"the Hub has no repository of that name, or it is private ({seen})"
    if status == 401:
        return "the Hub does not accept HF_TOKEN (make a new token in its settings)"
    if status == 403:
        return "the Hub forbids it (HF_TOKEN may lack the right to read this repository)"
    if status == 404:
        return "the Hub has no such file or repository"
    if status == 429:
        after = error.response.headers.get("Retry-After", "")
        when = f"again in {after} s" if after.isdecimal() else "later"
        return f"the Hub refuses for now: too many requests (try {when}; HF_TOKEN raises the limit)"
    return f"the Hub answered with status {status}"
