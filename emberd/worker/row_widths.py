"""How wide the rows of a packed batch are, in tokens.

Short texts fill what long ones leave of a row, so one width does for texts of all lengths. Texts
that are about as long as each other, such as chunks, may leave a quarter of it empty: then rows are
as wide as a whole number of them takes, if that makes up for the longer attention.
"""

STEP = 32  # few row widths: each new batch shape takes a third longer, and some memory
USUAL = 128  # if no text is longer: a CPU attends cheaply up to here
WIDEST = 256  # if texts are alike
ATTENTION = 1600  # a token in a row of W takes 1 + W / 1600 times as long (decision 16)


def round_up(tokens: int) -> int:
    """Return the next multiple of `STEP`."""
    return -(-tokens // STEP) * STEP


def for_alike(width: int, *, longest: int, common: int, texts: int, budget: int, most: int) -> int:
    """Return how wide rows should be, where `width` is usual.

    Args:
        width: at least `longest`.
        longest: tokens of the longest text.
        common: most texts have at least so many tokens.
        texts: how many wait.
        budget: how many tokens the batch may have.
        most: how many a row may have.
    """
    if (width // longest + 1) * common <= width:
        return width  # others fill the rows

    def cost(width: int) -> float:
        in_a_row = width // longest
        rows = min(budget // width, -(-texts // in_a_row))
        used = min(round_up(in_a_row * longest), width)
        return rows * used * (ATTENTION + width) / min(texts, rows * in_a_row)

    return min(range(width, min(most, budget) + 1, STEP), key=cost, default=width)
