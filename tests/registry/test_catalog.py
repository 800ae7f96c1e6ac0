"""Looking up a model by name, alias and Hub id; and the models that come with emberd."""

import re
from dataclasses import replace

import pytest

from emberd.backends import plugins
from emberd.backends.architectures.native import NATIVE
from emberd.config.load import BUILT_IN, load_config
from emberd.errors import BadOptionError, ConfigError, UnknownModelError
from emberd.registry.catalog import ROLES, Catalog, Named
from emberd.registry.spec import AskedRole, ModelSpec, Pooling, Precision, Source
from tests.reference.check_real_weights import ENTRIES as COMPARED


def spec(name: str, *sources: str, aliases: tuple[str, ...] = ()) -> ModelSpec:
    """A model with Hub sources; only what a test names differs."""
    return ModelSpec(
        name=name,
        sources=tuple(Source(hf=source) for source in sources or ("me/" + name,)),
        dimensions=8,
        pooling="mean",
        aliases=aliases,
    )


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return load_config(environ={"EMBERD_HOME": str(tmp_path_factory.mktemp("home"))}).catalog


@pytest.mark.parametrize("label", ["minilm", "all-minilm", "one/minilm", "two/minilm"])
def test_a_model_answers_to_its_name_its_aliases_and_its_hub_ids(label: str) -> None:
    minilm = spec("minilm", "one/minilm", "two/minilm", aliases=("all-minilm",))

    assert Catalog([spec("other"), minilm]).get(label) is minilm


def test_models_are_listed_in_the_order_they_were_given() -> None:
    assert [model.name for model in Catalog([spec("b"), spec("a"), spec("c")])] == ["b", "a", "c"]


def test_an_alias_beats_a_hub_id() -> None:
    named = spec("named", aliases=("me/packed",))

    assert Catalog([spec("packed"), named]).get("me/packed") is named


def test_a_hub_id_of_several_models_means_the_first_of_them() -> None:
    first, second = spec("first", "me/shared"), spec("second", "me/shared")

    assert Catalog([first, second]).get("me/shared") is first


def test_an_alias_may_repeat_the_models_own_name_and_hub_id() -> None:
    minilm = spec("minilm", aliases=("minilm", "me/minilm"))

    assert Catalog([minilm]).get("me/minilm") is minilm


@pytest.mark.parametrize("taken", ["first", "shared"])
def test_a_label_belongs_to_one_model_only(taken: str) -> None:
    with pytest.raises(ConfigError, match=f"{taken!r} belongs to both 'first' and 'second'"):
        Catalog([spec("first", aliases=("shared",)), spec("second", aliases=(taken,))])


def test_a_misspelt_name_is_met_with_the_nearest_ones() -> None:
    catalog = Catalog([spec("minilm", "a/b", aliases=("all-minilm",)), spec("mpnet")])

    with pytest.raises(UnknownModelError, match="No model is called 'MinLM'") as caught:
        catalog.get("MinLM")

    assert caught.value.hint == "Did you mean minilm or all-minilm?"


def test_a_name_that_is_near_to_nothing_is_met_with_the_list() -> None:
    with pytest.raises(UnknownModelError) as caught:
        Catalog([spec("minilm")]).get("gpt")

    assert caught.value.hint == "Run `emberd list`."


def test_a_name_without_end_does_not_fill_the_log() -> None:
    with pytest.raises(UnknownModelError) as caught:
        Catalog([spec("minilm")]).get("x" * 100_000)

    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("name", "dimensions", "pooling", "max_tokens", "hub_id"),
    [
        ("minilm", 384, "mean", 512, "sentence-transformers/all-MiniLM-L6-v2"),
        ("bge-small", 384, "cls", 512, "BAAI/bge-small-en-v1.5"),
        ("mpnet", 768, "mean", 384, "sentence-transformers/all-mpnet-base-v2"),
    ],
)
@pytest.mark.parametrize(("suffix", "precision"), [("", "4bit"), ("-f32", "f32")])
def test_the_models_of_the_house_are_there_in_both_precisions(
    built_in: Catalog,
    name: str,
    dimensions: int,
    pooling: Pooling,
    max_tokens: int,
    hub_id: str,
    suffix: str,
    precision: Precision,
) -> None:
    model = built_in.get(name + suffix)

    assert (model.name, model.dimensions, model.pooling) == (name + suffix, dimensions, pooling)
    assert (model.precision, model.max_tokens, model.normalize) == (precision, max_tokens, True)
    assert hub_id in model.hub_ids


def test_what_old_clients_call_the_model_is_minilm(built_in: Catalog) -> None:
    minilm = built_in.get("mlx-community/all-MiniLM-L6-v2-4bit")

    assert (minilm.name, minilm.public_id) == ("minilm", "mlx-community/all-MiniLM-L6-v2-4bit")


def test_both_precisions_of_a_model_get_the_same_prompts(built_in: Catalog) -> None:
    for model in built_in:
        assert built_in.get(model.name.removesuffix("-f32")).prompts == model.prompts


def test_only_queries_are_prompted_for_bge(built_in: Catalog) -> None:
    assert built_in.get("bge-small").prompts == {
        "query": "Represent this sentence for searching relevant passages: "
    }


def test_every_entry_states_what_people_need_to_know(built_in: Catalog) -> None:
    for model in built_in:
        assert model.max_tokens, model.name
        assert model.licence, model.name
        assert model.architecture, model.name
        assert model.hub_ids, model.name
        assert all(2 <= size < model.dimensions for size in model.matryoshka), model.name


@pytest.mark.parametrize("backend", ["openvino", "mlx"])
def test_every_entry_runs_on_every_backend(built_in: Catalog, backend: str) -> None:
    runs = plugins.architectures(plugins.load(backend)) & NATIVE

    assert {model.name for model in built_in if model.architecture not in runs} == set()
    assert {model.backend for model in built_in} == {"auto"}


def test_a_reference_is_claimed_for_the_models_whose_weights_were_compared(
    built_in: Catalog,
) -> None:
    claimed = {model.name for model in built_in if model.tested == "reference"}
    compared = {hub_id for entry in COMPARED for hub_id in built_in.get(entry).hub_ids}

    assert claimed == {model.name for model in built_in if compared.intersection(model.hub_ids)}
    assert {built_in.get(entry).precision for entry in COMPARED} == {"f32"}


def test_what_is_from_memory_is_not_called_tested() -> None:
    entries = re.split(r"\n(?=[a-z][\w.-]*:\n)", BUILT_IN.read_text(encoding="utf-8"))[1:]
    doubted = [entry for entry in entries if "from memory" in " ".join(entry.split())]

    assert doubted
    assert [each.split(":")[0] for each in doubted if 'tested: "no"' not in each] == []


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("nomic-embed-text", "nomic-embed"),
        ("nomic-embed-text:v1.5", "nomic-embed"),
        ("mxbai-embed-large", "mxbai-large"),
        ("mxbai-embed-large:335m", "mxbai-large"),
        ("all-minilm", "minilm"),
        ("all-minilm:22m", "minilm"),
        ("all-minilm:l6-v2", "minilm"),
        ("all-minilm:33m", "minilm-l12"),
        ("all-minilm:l12-v2", "minilm-l12"),
        ("snowflake-arctic-embed", "arctic-l"),
        ("snowflake-arctic-embed:22m", "arctic-xs"),
        ("snowflake-arctic-embed:33m", "arctic-s"),
        ("snowflake-arctic-embed:110m", "arctic-m"),
        ("snowflake-arctic-embed:335m", "arctic-l"),
        ("snowflake-arctic-embed2", "arctic-l-v2"),
        ("snowflake-arctic-embed2:568m", "arctic-l-v2"),
        ("bge-m3", "bge-m3"),
        ("bge-m3:567m", "bge-m3"),
        ("bge-large", "bge-large"),
        ("bge-large:335m", "bge-large"),
        ("embeddinggemma", "embeddinggemma"),
        ("embeddinggemma:300m", "embeddinggemma"),
        ("qwen3-embedding:0.6b", "qwen3-embedding"),
        ("granite-embedding", "granite-30m"),
        ("granite-embedding:30m", "granite-30m"),
        ("granite-embedding:278m", "granite-278m-multilingual"),
        ("paraphrase-multilingual", "multilingual-mpnet"),
        ("paraphrase-multilingual:278m", "multilingual-mpnet"),
    ],
)
def test_ollamas_names_are_known(built_in: Catalog, asked: str, means: str) -> None:
    assert built_in.find(asked) == Named(built_in.get(means))
    assert built_in.find(f"{asked}:query") == Named(built_in.get(means), "query")
    if ":" not in asked:
        assert built_in.find(f"{asked}:latest") == Named(built_in.get(means))


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("ms-marco-MiniLM-L6-v2", "ms-marco-minilm"),
        ("cross-encoder/ms-marco-MiniLM-L-6-v2", "ms-marco-minilm"),  # an older id of it
        ("ms-marco-MiniLM-L12-v2", "ms-marco-minilm-l12"),
        ("cross-encoder/ms-marco-MiniLM-L-12-v2", "ms-marco-minilm-l12"),
        ("BAAI/bge-reranker-base", "bge-reranker-base"),
        ("BAAI/bge-reranker-v2-m3", "bge-reranker-v2-m3"),
        ("gte-reranker-modernbert-base", "gte-reranker-modernbert"),
    ],
)
def test_re_rankers_answer_to_their_names_on_the_hub(
    built_in: Catalog, asked: str, means: str
) -> None:
    assert built_in.get(asked).name == means
    assert built_in.get(asked).kind == "rerank"


def test_no_alias_hides_a_role_or_a_tag_that_everybody_assumes(built_in: Catalog) -> None:
    tags = {alias.rpartition(":")[2].casefold() for spec in built_in for alias in spec.aliases}

    assert tags.isdisjoint({*ROLES, "latest"})


def test_names_differ_by_more_than_case(built_in: Catalog) -> None:
    names = [{spec.name.casefold(), *map(str.casefold, spec.aliases)} for spec in built_in]

    assert sum(map(len, names)) == len(set[str]().union(*names))


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("One", "One"),
        ("one", "three"),  # an alias that is written exactly so
        ("ONE", "One"),  # else a name beats an alias
        ("ME/PACKED", "three"),  # and an alias a Hub id
        ("Me/Two", "two"),
        ("One:latest", "One"),
        ("oNe:LATEST", "One"),
        ("tag:latest", "two"),
        ("TAG:latest", "two"),
        ("TAG", "three"),
    ],
)
def test_case_is_ignored_when_nothing_is_called_exactly_so(asked: str, means: str) -> None:
    catalog = Catalog(
        [
            spec("two", "me/two", "me/packed", aliases=("tag:latest",)),
            spec("One"),
            spec("three", aliases=("one", "Me/Packed", "tag")),
        ]
    )

    assert catalog.get(asked).name == means


@pytest.fixture
def roles() -> Catalog:
    """Two models, of which `bge` tells queries from documents, and an alias that states a role."""
    bge = replace(spec("bge", aliases=("tagged:v1", "ada")), prompts={"query": "q: "})
    return Catalog([bge, spec("minilm")], {"ada": Named(bge, "document"), "small": Named(bge)})


@pytest.mark.parametrize(
    ("name", "model", "role"),
    [
        ("bge", "bge", None),
        ("bge:query", "bge", "query"),
        ("BGE:Document", "bge", "document"),
        ("bge:query:latest", "bge", "query"),
        ("bge:LATEST:query", "bge", "query"),
        ("me/bge:query", "bge", "query"),
        ("tagged:v1", "bge", None),
        ("tagged:v1:query", "bge", "query"),
        ("ada", "bge", "document"),  # the file's alias, not the entry's
        ("ada:document", "bge", "document"),
        ("small:query", "bge", "query"),
        ("minilm:query", "minilm", "query"),
    ],
)
def test_a_name_may_state_a_role(roles: Catalog, name: str, model: str, role: str | None) -> None:
    found = roles.find(name)

    assert (found.spec.name, found.role) == (model, role)
    assert roles.get(name) is found.spec
    assert roles.find(found.label) == found


def test_what_is_called_so_is_no_name_with_a_role() -> None:
    catalog = Catalog([spec("bge"), spec("other", aliases=("bge:query",))])

    assert catalog.find("bge:query") == Named(catalog.get("other"))
    assert catalog.find("bge:document") == Named(catalog.get("bge"), "document")


def test_the_role_that_is_asked_for_is_that_of_a_name_that_states_none(roles: Catalog) -> None:
    assert roles.find("bge", "query").role == "query"
    assert roles.find("bge:query", "query").role == "query"
    assert roles.find("bge:query").role == "query"
    assert roles.find("bge", "none").role is None


@pytest.mark.parametrize("asked", ["document", "none"])
@pytest.mark.parametrize("name", ["bge:query", "minilm:query"])
def test_a_name_and_a_request_that_contradict_each_other(
    roles: Catalog, name: str, asked: AskedRole
) -> None:
    with pytest.raises(BadOptionError, match=f"The name '{name}' says .* role query, but "):
        roles.find(name, asked)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bge:image", "Did you mean bge? Only a role can follow bge: bge:query or bge:document."),
        ("minlm:query", "Did you mean minilm:query or me/minilm:query?"),
        ("minlm:QUERY:latest", "Did you mean minilm:query or me/minilm:query?"),
        ("tagged:v2", "Did you mean tagged:v1?"),
        ("ada:query", " ada already states the role document."),
        ("bge:query:document", " bge:query already states the role query."),
        (":query", "Run `emberd list`."),
        (":", "Run `emberd list`."),
    ],
)
def test_what_is_no_role_is_met_with_the_roles(roles: Catalog, name: str, hint: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        roles.find(name)

    assert (caught.value.hint or "").endswith(hint)


def test_names_with_a_role_are_listed_where_it_matters(roles: Catalog) -> None:
    assert roles.names(roles.get("bge")) == {
        "bge": None, "tagged:v1": None, "ada": "document", "small": None,
        "bge:query": "query", "bge:document": "document",
    }  # fmt: skip
    assert roles.names(roles.get("minilm")) == {"minilm": None}
    assert next(iter(roles.names(roles.get("bge")))) == "bge"


def test_every_model_of_the_house_takes_both_roles(built_in: Catalog) -> None:
    for model in built_in:
        for role in ROLES:
            assert built_in.find(f"{model.name}:{role}") == Named(model, role)
