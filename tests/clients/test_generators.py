"""Clients that generators write from `/openapi.json`: they are whole, and make calls."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from service.api.app import create_app
from service.api.http_protocol import TimeoutProtocol
from service.auth import Keyring
from service.config import Settings
from service.metrics import Metrics
from tests.clients.environment import GENERATORS, NODE_GENERATORS, CannotInstall, interpreter, kept, node_modules
from tests.fakes.model import FakeModel
from tests.support.app import open_manager
from tests.support.server import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL, TEXTS = "all-MiniLM-L6-v2", ["w1 w2", "w3"]
# Short runs of Java take half the processor time without its second compiler and its parallel collector.
JAVA = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
# What openapi-generator writes clients for, with its settings for each.
LANGUAGES: dict[str, dict[str, object]] = {
    "java": {"library": "native", "openApiNullable": False, "useJakartaEe": True},
    "kotlin": {},
    "go": {"isGoSubmodule": True, "packageName": "sonde"},
    "typescript-fetch": {},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service over a fake encoder."""
    settings, metrics = Settings.read({"home": tmp_path_factory.mktemp("home")}), Metrics()
    with closing(open_manager(settings, metrics, FakeModel(MODEL))) as manager:
        application = create_app(settings, manager, Keyring(settings.keys_file), metrics)
        server = uvicorn.Server(uvicorn.Config(application, port=0, http=TimeoutProtocol, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run)
        thread.start()
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def document(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(httpx.get(f"{url}/openapi.json", timeout=60).content)
    return path


@pytest.fixture(scope="session")
def python() -> Path:
    try:
        return interpreter(GENERATORS)
    except CannotInstall as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def node() -> Path:
    """The directory of node's programs."""
    try:
        return node_modules(NODE_GENERATORS) / ".bin"
    except CannotInstall as error:
        pytest.skip(str(error))


class Kept:
    """What generators and compilers make of a document, and that it is valid.

    It is made again where the document or this file has changed.
    """

    def __init__(self, document: Path) -> None:
        made_of = (document, Path(__file__), GENERATORS, NODE_GENERATORS)
        self._content = b"".join(path.read_bytes() for path in made_of)

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """The directory that `make` has filled."""
        return kept(f"made-{name}", self._content, make)


@pytest.fixture(scope="module")
def made(document: Path) -> Kept:
    return Kept(document)


@pytest.fixture(scope="module")
def generated(made: Kept, document: Path, python: Path) -> Path:
    """A directory with a client for each of `LANGUAGES`, all from one run of openapi-generator."""
    if shutil.which("java") is None:
        pytest.skip("openapi-generator needs java")

    def generate(directory: Path) -> None:
        for language, properties in LANGUAGES.items():
            about = {"generatorName": language, "inputSpec": str(document), "outputDir": str(directory / language)}
            (directory / f"{language}.json").write_text(json.dumps({**about, "additionalProperties": properties}))
        configurations = [f"{language}.json" for language in LANGUAGES]
        run(python.with_name("openapi-generator-cli"), "batch", "--fail-fast", *configurations, cwd=directory)

    return made.once("clients", generate)


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {**os.environ, **JAVA, **variables}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def own_vectors(url: str) -> list[list[float]]:
    data = httpx.post(f"{url}/v1/embeddings", json={"model": MODEL, "input": TEXTS}).json()["data"]
    return [item["embedding"] for item in data]


def test_the_document_is_valid(made: Kept, document: Path, python: Path) -> None:
    def validate(directory: Path) -> None:
        assert "OK" in run(python.with_name("openapi-spec-validator"), document, cwd=directory)

    made.once("valid", validate)


def test_openapi_python_client_makes_calls(made: Kept, document: Path, python: Path, url: str) -> None:
    def generate(directory: Path) -> None:
        options = ["--path", document, "--output-path", directory / "sonde_client", "--meta", "none"]
        command = shlex.join(map(str, [python.with_name("openapi-python-client"), "generate", *options]))
        assert "will not be generated" not in run("sh", "-c", f"{command} 2>&1", cwd=directory)

    program = f"""
import json
from sonde_client import Client
from sonde_client.api.open_ai import embeddings_v1_embeddings_post as embeddings
from sonde_client.models import EmbeddingsBody
body = EmbeddingsBody(model={MODEL!r}, input_={TEXTS!r})
answer = embeddings.sync(client=Client(base_url={url!r}), body=body)
print(json.dumps([item.embedding for item in answer.data]))
"""
    assert json.loads(run(python, "-c", program, cwd=made.once("python", generate))) == own_vectors(url)


def test_hey_apis_client_makes_calls(made: Kept, document: Path, node: Path, url: str) -> None:
    def generate(directory: Path) -> None:
        (directory / "node_modules").symlink_to(node.parent)
        run(node / "openapi-ts", "-i", document, "-o", directory / "client", cwd=directory)
        (directory / "call.ts").write_text(f"""
import {{ embeddingsV1EmbeddingsPost as embeddings }} from './client/sdk.gen';
declare const process: {{ argv: string[] }};
embeddings({{
  baseUrl: process.argv[2], body: {{ model: '{MODEL}', input: {json.dumps(TEXTS)} }}, throwOnError: true
}}).then(({{ data }}) => console.log(JSON.stringify(data.data.map((item) => item.embedding))));
""")
        compile_program(node, directory, "--strict")

    assert json.loads(run("node", "out/call.js", url, cwd=made.once("hey-api", generate))) == own_vectors(url)


def compile_program(node: Path, directory: Path, *options: str) -> None:
    """Compile `call.ts` into the directory `out`."""
    libraries = ("--skipLibCheck", "--target", "es2022", "--lib", "es2022,dom,dom.iterable")
    target = ("--module", "commonjs", "--moduleResolution", "node10", "--outDir", "out")
    run(node / "tsc", *libraries, *target, *options, "call.ts", cwd=directory)


def test_openapi_typescript_writes_types_that_compile(made: Kept, document: Path, node: Path) -> None:
    def compile_types(directory: Path) -> None:
        run(node / "openapi-typescript", document, "-o", directory / "sonde.ts", cwd=directory)
        options = ("--noEmit", "--strict", "--skipLibCheck", "--lib", "es2022,dom")
        run(node / "tsc", *options, "sonde.ts", cwd=directory)

    assert "embeddings" in (made.once("types", compile_types) / "sonde.ts").read_text()


@pytest.mark.parametrize("language", LANGUAGES)
def test_openapi_generator_reads_the_document(generated: Path, language: str) -> None:
    sources = "\n".join(path.read_text() for path in (generated / language).rglob("*.java"))
    assert "getList<" not in sources, "a method with such a name does not compile"
    assert (language == "java") == bool(sources)
    assert any((generated / language).rglob("*mbeddingsBody*"))
    kotlin = [path.name for path in (generated / language).rglob("models/*.kt") if "HashMap<" in path.read_text()]
    assert kotlin == [], "a model that is a map has no fields as JSON"


def test_the_client_of_typescript_fetch_makes_calls(made: Kept, generated: Path, node: Path, url: str) -> None:
    def compile_client(directory: Path) -> None:
        (directory / "client").symlink_to(generated / "typescript-fetch")
        (directory / "call.ts").write_text(f"""
import {{ Configuration, OpenAIApi }} from './client';
declare const process: {{ argv: string[] }};
const api = new OpenAIApi(new Configuration({{ basePath: process.argv[2] }}));
const embeddingsBody: any = {{ model: '{MODEL}', input: {json.dumps(TEXTS)} }};
api.embeddingsV1EmbeddingsPost({{ embeddingsBody }}).then((answer) =>
  console.log(JSON.stringify(answer.data.map((item) => item.embedding))));
""")
        compile_program(node, directory)

    assert json.loads(run("node", "out/call.js", url, cwd=made.once("fetch", compile_client))) == own_vectors(url)


def test_the_client_for_java_makes_calls(made: Kept, generated: Path, python: Path, url: str) -> None:
    libraries = [Path("/usr/share/java", name) for name in ("httpmime.jar", "jakarta-annotation-api.jar")]
    if shutil.which("javac") is None or not all(library.exists() for library in libraries):
        pytest.skip("its client for Java needs a JDK, libhttpmime-java and libjakarta-annotation-api-java")
    [generator] = python.parent.parent.rglob("openapi-generator.jar")  # it brings Jackson and Apache's client
    path = ":".join(map(str, [generator, *libraries, "."]))

    def compile_client(directory: Path) -> None:
        (directory / "Call.java").write_text(f"""
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.OpenAiApi;
import org.openapitools.client.model.EmbeddingsBody;

class Call {{
    public static void main(String[] given) throws Exception {{
        var client = new ApiClient();
        client.updateBaseUri(given[0]);
        var body = new EmbeddingsBody().model("{MODEL}").input(new String[] {{"{'", "'.join(TEXTS)}"}});
        var answer = new OpenAiApi(client).embeddingsV1EmbeddingsPost(body, null);
        System.out.println(ApiClient.createDefaultObjectMapper().writeValueAsString(answer));
    }}
}}
""")
        sources = (generated / "java").glob("src/main/**/*.java")
        run("javac", "-nowarn", "-proc:none", "-cp", path, *sources, "Call.java", "-d", ".", cwd=directory)

    answer = json.loads(run("java", "-cp", path, "Call", url, cwd=made.once("java", compile_client)))
    np.testing.assert_allclose([item["embedding"] for item in answer["data"]], own_vectors(url), rtol=1e-6)


def test_the_client_for_go_makes_calls(made: Kept, generated: Path, url: str) -> None:
    if shutil.which("go") is None:
        pytest.skip("the client for Go needs go")

    def compile_client(directory: Path) -> None:
        for source in (generated / "go").glob("*.go"):
            shutil.copy(source, directory)
        (directory / "call").mkdir()
        (directory / "go.mod").write_text("module sonde\n\ngo 1.19\n")
        (directory / "call" / "main.go").write_text(f"""
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sonde"
)

func main() {{
	settings := sonde.NewConfiguration()
	settings.Servers = sonde.ServerConfigurations{{{{URL: os.Args[1]}}}}
	body := sonde.EmbeddingsBody{{}}
	if err := json.Unmarshal([]byte(`{json.dumps({"model": MODEL, "input": TEXTS})}`), &body); err != nil {{
		panic(err)
	}}
	call := sonde.NewAPIClient(settings).OpenAIAPI.EmbeddingsV1EmbeddingsPost(context.Background())
	answer, _, err := call.EmbeddingsBody(body).Execute()
	if err != nil {{
		panic(err)
	}}
	written, _ := json.Marshal(answer)
	fmt.Println(string(written))
}}
""")
        run("go", "build", "-o", "program", "./call", cwd=directory, GOFLAGS="-mod=mod", GOPROXY="off")

    answer = json.loads(run("./program", url, cwd=made.once("go", compile_client)))
    assert [item["embedding"] for item in answer["data"]] == own_vectors(url)
