"""The own lines of a model that embeds: dimensions, pooling, length and prompts."""

from emberd.proposal import lines, sparse
from emberd.proposal.subject import OwnLines, Subject


def own_lines(subject: Subject) -> OwnLines:
    """Return them.

    Raises:
        ModelLoadError: a file asks for what emberd does not have.
        BadOptionError: what the user chose contradicts a file.
    """
    read = subject.read
    pooling = list(lines.of_pooling(read, subject.chosen.pooling))
    checkpoint = subject.checkpoint(*pooling)
    dimensions = lines.of_dimensions(checkpoint, subject.hidden_size)
    return OwnLines(
        [*dimensions, *pooling, *lines.of_length(read)],
        [*lines.of_prompts(read, subject.label), *sparse.notes(read.path, subject.config)],
    )
