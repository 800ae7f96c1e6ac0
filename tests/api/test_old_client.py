"""What cmem's client relies on: exactly the behaviour of the server that emberd replaces."""

import httpx2

from tests.serving import Server

MODEL = "mlx-community/all-MiniLM-L6-v2-4bit"


def test_embed_answers_one_list_of_floats_per_text_and_the_dimensions(server: Server) -> None:
    response = server.http.post("/embed", json={"texts": ["one", "two"]})

    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert [len(vector) for vector in answer["embeddings"]] == [384, 384]
    assert all(isinstance(number, float) for vector in answer["embeddings"] for number in vector)
    assert answer["dimensions"] == 384


def test_vectors_have_unit_length(server: Server) -> None:
    (vector,) = server.embed("of unit length")["embeddings"]

    assert abs(sum(number * number for number in vector) - 1) < 1e-5


def test_an_empty_list_is_refused_in_the_words_the_client_knows(server: Server) -> None:
    response = server.http.post("/embed", json={"texts": []})

    assert response.status_code == 400
    assert response.json()["detail"] == "No texts provided"


def test_a_body_without_texts_is_a_422(server: Server) -> None:
    assert server.http.post("/embed", json={}).status_code == 422


def test_health_has_the_old_fields_with_the_old_meaning(server: Server) -> None:
    server.embed("loads it")

    health = server.http.get("/health").json()

    assert (health["status"], health["model"]) == ("ok", MODEL)
    assert (health["dimensions"], health["loaded"]) == (384, True)


def test_unload_takes_no_body_and_no_content_type_and_health_says_so(server: Server) -> None:
    server.embed("loads it")

    response = httpx2.request("POST", f"{server.url}/unload", trust_env=False, timeout=60)

    assert response.status_code == 200
    assert response.json()["status"] == "unloaded"
    assert server.http.get("/health").json()["loaded"] is False


def test_unknown_fields_of_a_request_are_ignored_as_they_were(server: Server) -> None:
    assert server.embed("text", colour="red")["dimensions"] == 384
