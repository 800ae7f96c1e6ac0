"""An example or two for every command's `--help`. Each can be typed as it is."""

import typer

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "serve": (
        ("emberd serve", "on 127.0.0.1:8767"),
        ("emberd serve --port 9000 --default bge-small", "another port, another default"),
    ),
    "pull": (
        ("emberd pull bge-small", "one model"),
        ("emberd pull minilm mpnet", "several"),
        ("emberd pull bge-small --update", "take the Hub's newest commit"),
    ),
    "add": (
        ("emberd add TaylorAI/gte-tiny", "from the Hub: shows the entry, and asks"),
        ("emberd add ~/models/mine --name mine --yes", "a folder, without asking"),
        ("emberd add owner/name --pooling mean", "what no file of it says"),
    ),
    "prepare": (
        ("emberd prepare", "the default and pinned models"),
        ("emberd prepare bge-small", "one model"),
    ),
    "list": (
        ("emberd list", "all models, and which are downloaded"),
        ("emberd list -v", "also the disk space each takes"),
    ),
    "remove": (("emberd remove bge-small", "says how much disk space was freed"),),
    "open": (("emberd open", "what is loaded, what it costs, what was asked"),),
    "ps": (("emberd ps", "what is loaded now"), ("emberd ps -v", "also how long each start took")),
    "embed": (
        ('emberd embed "The kettle is on."', "one text"),
        ("emberd embed --model mpnet < lines.txt > vectors.jsonl", "each line is a text"),
        ("emberd embed --chunk 200 --jsonl < texts.jsonl", "a line for each chunk"),
        ("emberd embed --chunk 200 --late --jsonl < texts.jsonl", "each read in its whole text"),
        ("emberd embed --jsonl < texts.jsonl > vectors.jsonl", 'each line is {"text": "..."}'),
    ),
    "embed-files": (
        ("emberd embed-files notes.parquet --text body --out vectors", "a folder of Parquet"),
        ("emberd embed-files *.jsonl --out vectors --model mpnet", "texts in the column `text`"),
    ),
    "chunk": (
        ("emberd chunk book.txt", "in chunks as large as the model takes"),
        ("emberd chunk --size 200 --overlap 20 notes/*.md", "smaller ones, of several files"),
        ("emberd chunk --language python main.py", "code"),
    ),
    "rerank": (
        ('emberd rerank "when does the ferry leave?" < lines.txt', "each line is a text"),
        ("emberd rerank --top-n 3 --json QUERY < lines.txt", "the best three, for programs"),
    ),
    "cache": (("emberd cache", "how much is kept on disk, and how often it helped"),),
    "cache clear": (("emberd cache clear", "says how much disk space was freed"),),
    "load": (("emberd load bge-small", "so that its first request does not wait"),),
    "unload": (("emberd unload bge-small", "one model"), ("emberd unload", "all of them")),
    "verify": (
        ("emberd verify minilm", "one model"),
        ("emberd verify", "every model whose files are here"),
        ("emberd verify minilm --json --progress", "for programs: each check as it comes"),
        ("emberd verify --accept minilm", "accept the model as it is now"),
    ),
    "ray config": (
        ("emberd ray config > serve.yaml", "what `emberd ray deploy` takes"),
        ("emberd ray config --ingresses 2 --gpus 1 > serve.yaml", "for nodes with GPUs"),
    ),
    "ray deploy": (("emberd ray deploy serve.yaml", "also when it has changed"),),
    "ray start": (
        ("emberd ray start --head", "on the first machine"),
        ("emberd ray start --head --haproxy", "the same, with a shorter way in"),
        ("emberd ray start --address one:6379", "on each further one"),
    ),
    "doctor": (("emberd doctor", "what is wrong, and what to do"),),
    "use": (
        ("emberd use bge-small --dry-run", "what it would change"),
        ("emberd use bge-small", "write it into the config file"),
        ("emberd use bge-small --migrate", "also embed the configured stores again"),
    ),
    "reload": (("emberd reload", "says what changed"),),
    "map": (
        ("emberd map ~/notes.db --out notes.parquet", "for Embedding Atlas"),
        ("emberd map notes --out notes.parquet --check", "also who made which row"),
    ),
    "compare": (
        ("emberd compare minilm bge-small --store ~/notes.db", "on the texts of a store"),
        ("emberd compare minilm mpnet --texts lines.txt", "each line is a text"),
        ("emberd compare minilm --texts lines.txt --rerank ms-marco-minilm", "with a re-ranker"),
        (
            "emberd compare minilm mpnet --texts t.jsonl --queries q.jsonl",
            "what is found for these queries",
        ),
    ),
    "bench": (
        ("emberd bench", "the default model, in a server of its own"),
        ("emberd bench --model mpnet --json", "for programs"),
    ),
    "service install": (
        ("emberd service install", "now, and at every login"),
        ("emberd service install --dry-run", "only show what would be written"),
    ),
    "service status": (("emberd service status", "is it running, and ready?"),),
    "service logs": (("emberd service logs -f", "new lines as they are written"),),
    "service restart": (("emberd service restart", "returns when it is ready"),),
    "service uninstall": (("emberd service uninstall", "models and settings stay"),),
    "config path": (("emberd config path", "which file to edit"),),
    "config check": (("emberd config check", "is the file valid?"),),
    "config diff": (("emberd config diff", "what a reload would change"),),
    "config init": (("emberd config init", "a file with comments, to edit"),),
    "config show": (
        ("emberd config show", "what you have set, and where"),
        ("emberd config show --all", "every setting"),
    ),
    "migrate check": (
        ("emberd migrate check ~/notes.db", "whose vectors are these?"),
        ("emberd migrate check ~/notes.db -o text=notes.body", "say where its texts are, if asked"),
    ),
    "migrate run": (
        (
            "emberd migrate run ~/notes.db --to bge-small --dry-run",
            "how long it takes, how much disk",
        ),
        ("emberd migrate run ~/notes.db --to bge-small", "migrate it"),
    ),
    "migrate undo": (("emberd migrate undo ~/notes.db", "back to how it was before"),),
    "migrate status": (
        ("emberd migrate status ~/notes.db", "how far it is, and which backups there are"),
    ),
}


def add_to(app: typer.Typer, before: str = "") -> None:
    """Put the examples below the help of every command of `app` and of its groups."""
    for command in app.registered_commands:
        name = str(command.name or getattr(command.callback, "__name__", ""))
        command.epilog = _epilog(EXAMPLES.get(before + name, ()))
    for group in app.registered_groups:
        if f"{before}{group.name}" in EXAMPLES:  # it does something by itself, too
            group.epilog = _epilog(EXAMPLES[f"{before}{group.name}"])
        if group.typer_instance:
            add_to(group.typer_instance, f"{before}{group.name} ")


def _epilog(examples: tuple[tuple[str, str], ...]) -> str:
    lines = (f"  {typed}\n      {meaning}" for typed, meaning in examples)
    return "\n".join(["\b", "Example:" if len(examples) == 1 else "Examples:", *lines])
