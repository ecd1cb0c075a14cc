"""One suite for every framework: the same clinic behind each, decided by the real engine.

A physician, a nurse and a receptionist of cardiology, a physician of oncology; Ann is a patient of
cardiology.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Protocol

import django
import flask
import httpx
import pytest
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path as django_path
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from chartgate.app.ruling import Obligation, Reason
from chartgate.sdk import KEY, Chartgate, Decision, Label, Labels, Record, disclosed, keep
from chartgate.sdk import flask as for_flask
from chartgate.sdk.asked import ask, ask_async, current, identify
from chartgate.sdk.decision import unavailable
from chartgate.sdk.disclose import disclose
from chartgate.sdk.errors import Misused
from chartgate.sdk.fastapi import disclosed_response, protect
from chartgate.sdk.guard import of, public
from chartgate.sdk.routes import routes_of
from chartgate.sdk.starlette import ChartgateMiddleware, require, required
from chartgate.sdk.testing import LocalPatient, LocalPolicy, Routes, person, watching

ROOT = Path(__file__).resolve().parents[3]
PEOPLE = (
    person("mwelby", "physician", "cardiology"),
    person("nadams", "nurse", "cardiology"),
    person("rpatel", "receptionist_scheduler", "cardiology"),
    person("oncdoc", "physician", "oncology"),
)


@disclosed(
    patient="id",
    id=KEY,
    name="demographics",
    potassium=Label("labs", summary=lambda v: "abnormal" if v > 5 else "normal"),
)
@dataclass(frozen=True)
class Patient:
    id: str
    name: str
    potassium: float


ANN = Patient("17", "Ann", 4.2)
PATIENT = of("patient", labels=Patient)


@cache
def engine() -> LocalPolicy:
    return LocalPolicy(
        ROOT / "policies",
        PEOPLE,
        data_map=ROOT / "maps" / "hospital.toml",
        patients=[LocalPatient("17", {"departments": ["cardiology"], "age_bands": ["adult"]})],
    )


class Recording:
    """The real engine, and what was said to it; an answer for some people can be put instead."""

    is_async = False

    def __init__(self) -> None:
        self.contexts: list[Mapping[str, Any]] = []
        self.instead: Decision | None = None

    def decide(
        self, subject: Any, action: Any, resource: Any, context: Any = None, **_: Any
    ) -> Decision:
        self.contexts.append(context)
        decision = engine().decide(subject, action, resource, context)
        return decision if self.instead is None else self.instead


class Answer(Protocol):
    status_code: int
    headers: Mapping[str, str]
    content: bytes


class App(Protocol):
    gate: Recording

    def __call__(self, path: str, user: str = "", **headers: str) -> Answer: ...
    def routes(self) -> Any: ...


def told(answer: Answer) -> Any:
    return json.loads(answer.content)


# --- the same clinic, four times --------------------------------------------------------------


def over_asgi(app: Any, path: str, user: str, headers: Mapping[str, str]) -> Answer:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("10.1.2.3", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.get(path, headers={"x-user": user, **sent})

    return asyncio.run(get())


class Asgi:
    def __init__(self, make: Callable[[Recording], Any]) -> None:
        self.gate = Recording()
        self.app = make(self.gate)

    def __call__(self, path: str, user: str = "", **headers: str) -> Answer:
        return over_asgi(self.app, path, user, headers)

    def routes(self) -> Any:
        return self.app


def by_header(connection: Any) -> str | None:
    return connection.headers.get("x-user") or None


def starlette_app(gate: Recording) -> Starlette:
    @required("view", of("patient", "labs"))
    async def labs(request: Request) -> JSONResponse:
        return JSONResponse({"potassium": ANN.potassium, "by": request.state.decision.policies})

    async def patient(request: Request) -> JSONResponse:
        decision = await require("view", PATIENT, partial=True)(request)
        return JSONResponse(disclose(ANN, decision))

    def threaded(request: Request) -> JSONResponse:
        return JSONResponse({"allowed": ask("view", Record(patient="17", category="labs")).allowed})

    async def signed_in_later(request: Request) -> JSONResponse:
        identify("mwelby", session="s", acr=2)
        decision = await ask_async("view", Record(patient="17", category="labs"))
        return JSONResponse({"allowed": decision.allowed})

    @public("says whether the process runs")
    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    async def forgotten(request: Request) -> JSONResponse:
        return JSONResponse({"name": ANN.name})

    return Starlette(
        routes=[
            Route("/patients/{patient}/labs", labs),
            Route("/patients/{patient}", patient),
            Mount("/more", routes=[Route("/threaded", threaded), Route("/later", signed_in_later)]),
            Route("/health", health),
            Route("/forgotten", forgotten),
        ],
        middleware=[Middleware(ChartgateMiddleware, gate=gate, subject=by_header)],
    )


def fastapi_app(gate: Recording) -> FastAPI:
    app = FastAPI()

    @app.get("/patients/{patient}/labs")
    async def labs(
        decision: Annotated[Decision, Depends(require("view", of("patient", "labs")))],
    ) -> Any:
        return {"potassium": ANN.potassium, "by": decision.policies}

    @app.get("/patients/{patient}")
    def patient(
        decision: Annotated[Decision, Depends(require("view", PATIENT, partial=True))],
    ) -> Any:
        return disclosed_response(ANN, decision)

    more = APIRouter(prefix="/more")

    @more.get("/threaded")
    def threaded() -> Any:
        return {"allowed": ask("view", Record(patient="17", category="labs")).allowed}

    @more.get("/later")
    async def signed_in_later() -> Any:
        identify("mwelby", session="s", acr=2)
        return {"allowed": (await ask_async("view", Record(patient="17", category="labs"))).allowed}

    app.include_router(more)

    @app.get("/health")
    @public("says whether the process runs")
    async def health() -> Any:
        return {"ok": True}

    @app.get("/forgotten")
    async def forgotten() -> Any:
        return {"name": ANN.name}

    protect(app, gate, subject=by_header)
    return app


class Flask:
    def __init__(self) -> None:
        self.gate = Recording()
        app = self.app = flask.Flask(__name__)
        for_flask.protect(
            app, self.gate, subject=lambda: flask.request.headers.get("x-user") or None
        )

        @app.get("/patients/<patient>/labs")
        @for_flask.require("view", of("patient", "labs"))
        def labs(patient: str) -> Any:
            return {"potassium": ANN.potassium, "by": flask.g.decision.policies}

        @app.get("/patients/<patient>")
        @for_flask.require("view", PATIENT, partial=True)
        def patient(patient: str) -> Any:
            return for_flask.shown(ANN)

        @app.get("/more/threaded")
        def threaded() -> Any:
            return {"allowed": ask("view", Record(patient="17", category="labs")).allowed}

        @app.get("/more/later")
        def later() -> Any:
            identify("mwelby", session="s", acr=2)
            return {"allowed": ask("view", Record(patient="17", category="labs")).allowed}

        @app.get("/health")
        @public("says whether the process runs")
        def health() -> Any:
            return {"ok": True}

        @app.get("/forgotten")
        def forgotten() -> Any:
            return {"name": ANN.name}

    def __call__(self, path: str, user: str = "", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer: Any = self.app.test_client().get(
            path, headers={"x-user": user, **sent}, environ_base={"REMOTE_ADDR": "10.1.2.3"}
        )
        answer.content = answer.data
        return answer

    def routes(self) -> Any:
        return self.app


DJANGO_GATE = Recording()


def django_urls() -> list[Any]:
    from chartgate.sdk.django import require as check
    from chartgate.sdk.django import shown

    @check("view", of("patient", "labs"))
    def labs(request: Any, patient: str) -> Any:
        return JsonResponse({"potassium": ANN.potassium, "by": request.decision.policies})

    @check("view", PATIENT, partial=True)
    async def patient(request: Any, patient: str) -> Any:
        return shown(ANN, request.decision)

    def threaded(request: HttpRequest) -> Any:
        return JsonResponse({"allowed": ask("view", Record(patient="17", category="labs")).allowed})

    async def later(request: HttpRequest) -> Any:
        identify("mwelby", session="s", acr=2)
        decision = await ask_async("view", Record(patient="17", category="labs"))
        return JsonResponse({"allowed": decision.allowed})

    @public("says whether the process runs")
    def health(request: HttpRequest) -> Any:
        return JsonResponse({"ok": True})

    def forgotten(request: HttpRequest) -> Any:
        return JsonResponse({"name": ANN.name})

    return [
        django_path("patients/<str:patient>/labs", labs),
        django_path("patients/<str:patient>", patient),
        django_path("more/threaded", threaded),
        django_path("more/later", later),
        django_path("health", health),
        django_path("forgotten", forgotten),
        *rest_urls(),
    ]


def rest_urls() -> list[Any]:
    """The same with Django REST framework."""
    from rest_framework import generics, serializers

    from chartgate.sdk.drf import Disclosed, allowed

    class Results(Disclosed, serializers.Serializer):  # type: ignore[misc]
        labels = Labels.of(
            {"id": KEY, "potassium": Label("labs", summary=keep), "note": "sud_part2"},
            patient="patient",
            row="labs",
            also=lambda one: one.also,
        )
        id = serializers.IntegerField()
        potassium = serializers.FloatField()
        note = serializers.CharField()
        unlabelled = serializers.CharField()

    about = of("patient", labels=Results.labels, also=["sud_part2"])

    class ResultsOf(generics.ListAPIView):  # type: ignore[misc]
        permission_classes = (allowed("view", about, partial=True),)
        serializer_class = Results

        def get_queryset(self) -> Any:
            return RESULTS

    class OneResult(generics.RetrieveAPIView):  # type: ignore[misc]
        permission_classes = (
            allowed(
                "view",
                about=lambda one: Results.labels.record(one.patient, also=["sud_part2"]),
                partial=True,
            ),
        )
        serializer_class = Results

        def get_object(self) -> Any:
            found = RESULTS[self.kwargs["number"]]
            self.check_object_permissions(self.request, found)
            return found

    class Unasked(generics.ListAPIView):  # type: ignore[misc]
        serializer_class = Results

        def get_queryset(self) -> Any:
            return RESULTS

    return [
        django_path("rest/<str:patient>/results", ResultsOf.as_view()),
        django_path("rest/results/<int:number>", OneResult.as_view()),
        django_path("rest/unasked", Unasked.as_view()),
    ]


@dataclass(frozen=True)
class Result:
    id: int
    potassium: float
    note: str = "of a programme"
    patient: str = "17"
    also: tuple[str, ...] = ()
    unlabelled: str = "x"


RESULTS = [Result(1, 4.2), Result(2, 5.9, also=("sud_part2",)), Result(3, 4.0, patient="18")]


class Django:
    def __init__(self, *, asynchronous: bool) -> None:
        if not settings.configured:
            settings.configure(
                ALLOWED_HOSTS=["*"],
                SECRET_KEY="of a test",
                ROOT_URLCONF="chartgate_django_urls",
                MIDDLEWARE=["chartgate.sdk.django.ChartgateMiddleware"],
                REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None},
                DEFAULT_CHARSET="utf-8",
                CHARTGATE={"gate": DJANGO_GATE, "subject": by_header},
            )
            import sys
            from types import ModuleType

            urls: Any = ModuleType("chartgate_django_urls")
            urls.urlpatterns = django_urls()
            sys.modules["chartgate_django_urls"] = urls
            django.setup()
        self.gate = DJANGO_GATE
        self.gate.instead = None
        self.gate.contexts.clear()
        self._asynchronous = asynchronous

    def __call__(self, path: str, user: str = "", **headers: str) -> Answer:
        from django.core.asgi import get_asgi_application
        from django.test import Client

        if self._asynchronous:
            return over_asgi(get_asgi_application(), path, user, headers)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        client: Any = Client(raise_request_exception=False, REMOTE_ADDR="10.1.2.3")
        return client.get(path, headers={"x-user": user, **sent})  # type: ignore[no-any-return]

    def routes(self) -> Any:
        return "django"


APPS: dict[str, Callable[[], App]] = {
    "starlette": lambda: Asgi(starlette_app),
    "fastapi": lambda: Asgi(fastapi_app),
    "flask": Flask,
    "django": lambda: Django(asynchronous=False),
    "django async": lambda: Django(asynchronous=True),
}


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> App:
    return APPS[request.param]()


@pytest.fixture
def routes() -> Iterator[Routes]:
    with watching() as seen:
        yield seen


# --- what each of them does -------------------------------------------------------------------


def test_who_may_sees_and_the_policy_is_named(app: App) -> None:
    answer = app("/patients/17/labs", "mwelby")
    assert answer.status_code == 200, answer.content
    assert told(answer)["potassium"] == 4.2
    assert told(answer)["by"]


def test_who_may_not_is_told_why(app: App) -> None:
    for user in ("rpatel", "oncdoc"):
        answer = app("/patients/17/labs", user)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        problem = told(answer)
        assert problem["code"] == "access_denied"
        assert problem["clauses"]
        assert b"4.2" not in answer.content
        assert b"17" not in answer.content


def test_each_sees_her_part_of_the_same_page(app: App) -> None:
    shown = {user: app("/patients/17", user) for user in ("mwelby", "rpatel", "oncdoc")}
    assert told(shown["mwelby"]) == {"id": "17", "name": "Ann", "potassium": 4.2}
    assert told(shown["rpatel"]) == {"id": "17", "name": "Ann"}
    assert shown["oncdoc"].status_code == 403


def test_a_patient_who_does_not_exist_is_answered_like_one_that_is_not_hers(app: App) -> None:
    here, nowhere = app("/patients/17/labs", "oncdoc"), app("/patients/18/labs", "oncdoc")
    assert here.status_code == nowhere.status_code == 403
    assert here.content == nowhere.content


def test_nobody_signed_in_is_401(app: App) -> None:
    answer = app("/patients/17/labs")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not app.gate.contexts


def test_no_answer_is_503(app: App) -> None:
    app.gate.instead = unavailable("the decision service gave no answer")
    answer = app("/patients/17/labs", "mwelby")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert app("/patients/17", "mwelby").status_code == 503


def test_a_sign_in_that_is_too_weak_is_challenged(app: App) -> None:
    app.gate.instead = Decision(
        allowed=False,
        reason=Reason("no_permit", "Sign in with a second factor."),
        obligations=(Obligation("step_up", values=("urn:chartgate:acr:2", 'no"good')),),
        audit_log="demo/log",
        audit_index=7,
    )
    answer = app("/patients/17/labs", "mwelby")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        'Bearer error="insufficient_user_authentication", acr_values="urn:chartgate:acr:2"'
    )
    assert told(answer)["audit"] == {"log": "demo/log", "index": 7}


def test_a_route_that_has_not_asked_answers_nothing(app: App) -> None:
    answer = app("/forgotten", "mwelby")
    assert answer.status_code == 500
    assert told(answer)["code"] == "unasked"
    assert b"Ann" not in answer.content


def test_a_public_route_need_not_ask(app: App) -> None:
    assert told(app("/health")) == {"ok": True}


def test_what_is_not_there_is_not_there(app: App) -> None:
    assert app("/nowhere", "mwelby").status_code == 404


def test_a_plain_function_asks_too(app: App) -> None:
    assert told(app("/more/threaded", "mwelby")) == {"allowed": True}
    assert told(app("/more/threaded", "rpatel")) == {"allowed": False}
    assert app("/more/threaded").status_code == 401


def test_the_application_may_say_who_it_is(app: App) -> None:
    assert told(app("/more/later")) == {"allowed": True}
    assert app.gate.contexts == [{"session": "s", "ip": "10.1.2.3", "acr": 2}]


def test_purpose_and_address_come_from_the_request(app: App) -> None:
    assert app("/patients/17/labs", "mwelby", x_purpose_of_use="ETREAT").status_code == 200
    assert app("/patients/17/labs", "mwelby", x_purpose_of_use="HRESCH").status_code == 403
    assert app("/patients/17/labs", "mwelby", x_purpose_of_use="two words").status_code == 200
    assert [one.get("purpose") for one in app.gate.contexts] == ["ETREAT", "HRESCH", None]
    assert {one["ip"] for one in app.gate.contexts} == {"10.1.2.3"}


def test_nothing_is_left_behind_after_a_request(app: App) -> None:
    app("/patients/17/labs", "mwelby")
    assert current() is None


def test_the_applications_own_test_finds_what_is_missing(app: App, routes: Routes) -> None:
    app("/patients/17/labs", "mwelby")
    app("/forgotten", "mwelby")
    app("/health")
    with pytest.raises(AssertionError) as caught:
        routes.check(app.routes())
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    said = {line for line in lines if "never" not in line}
    assert len(said) == 1
    assert said.pop().endswith("/forgotten answered without asking Chartgate")
    never = [line.split()[1] for line in lines if line.endswith("was never seen to answer")]
    never = [path for path in never if not path.startswith("/rest/")]
    assert len(never) == 3
    assert never[0].startswith("/patients/")
    assert [path.rpartition("/")[2] for path in never[1:]] == ["threaded", "later"]
    app("/patients/17", "mwelby")
    app("/more/threaded", "mwelby")
    app("/more/later", "mwelby")
    rest = tuple(str(route) for route in routes_of(app.routes()) if "/rest/" in str(route))
    with pytest.raises(AssertionError) as caught:
        routes.check(app.routes(), but=rest)
    assert "never" not in str(caught.value)


# --- of one framework alone ---------------------------------------------------------------------


async def test_a_websocket_that_has_not_asked_is_not_accepted() -> None:
    async def forgotten(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"name": ANN.name})

    async def asks(socket: WebSocket) -> None:
        decision = await require("view", of("patient", "labs"))(socket)
        await socket.accept()
        await socket.send_json({"allowed": decision.allowed})

    app = Starlette(
        routes=[
            WebSocketRoute("/forgotten", forgotten),
            WebSocketRoute("/patients/{patient}", asks),
        ],
        middleware=[Middleware(ChartgateMiddleware, gate=Recording(), subject=by_header)],
    )

    async def talk(path: str, user: str) -> list[str]:
        sent: list[str] = []
        scope = {
            "type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"x-user", user.encode())], "client": None, "subprotocols": [],
            "scheme": "ws", "server": ("t", 80), "root_path": "", "asgi": {"version": "3.0"},
        }  # fmt: skip

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app(scope, receive, send)
        return sent

    assert await talk("/forgotten", "mwelby") == ["websocket.close"]
    assert await talk("/patients/17", "rpatel") == ["websocket.close"]
    assert await talk("/patients/17", "mwelby") == ["websocket.accept", "websocket.send"]


def test_fastapis_own_pages_stay_open() -> None:
    app = Asgi(fastapi_app)
    assert app("/openapi.json").status_code == 200
    assert app("/docs").status_code == 200


def test_flask_refuses_a_client_that_it_could_not_wait_for() -> None:
    class Later:
        is_async = True

    with pytest.raises(Misused, match="blocking"):
        for_flask.protect(flask.Flask(__name__), Later())


def test_public_is_said_with_a_reason() -> None:
    for wrong in ("", " ", None):
        with pytest.raises(Misused):
            public(wrong)  # type: ignore[arg-type]


def test_a_check_names_a_parameter_of_its_route() -> None:
    with pytest.raises(Misused, match="no parameter"):
        of("patient", "labs")({"id": "17"})
    with pytest.raises(Misused, match="categories or fields"):
        of("patient")
    with pytest.raises(Misused, match="declares no labels"):
        of("patient", labels=int)


def test_outside_of_a_request_nobody_asks() -> None:
    with pytest.raises(Misused, match="middleware"):
        ask("view", Record(patient="17", category="labs"))


# --- Django REST framework ----------------------------------------------------------------------


@pytest.fixture
def rest() -> Django:
    return Django(asynchronous=False)


def test_a_list_shows_the_rows_and_fields_that_she_may_see(rest: Django) -> None:
    RESULTS[2:] = []  # of one patient
    try:
        # Of what is masked for her a number has no form, so that of the second nothing is left.
        assert told(rest("/rest/17/results", "mwelby")) == [{"id": 1, "potassium": 4.2}]
        assert rest("/rest/17/results", "rpatel").status_code == 403
        assert rest("/rest/17/results").status_code == 401
    finally:
        RESULTS[2:] = [Result(3, 4.0, patient="18")]


def test_a_list_with_somebody_elses_row_shows_nothing(rest: Django) -> None:
    assert rest("/rest/17/results", "mwelby").status_code == 500


def test_an_object_is_asked_about_by_itself(rest: Django) -> None:
    assert told(rest("/rest/results/0", "mwelby")) == {"id": 1, "potassium": 4.2}
    assert rest("/rest/results/0", "oncdoc").status_code == 403
    assert rest("/rest/results/2", "mwelby").status_code == 403  # there is no such patient


def test_a_serializer_without_a_decision_shows_nothing(rest: Django) -> None:
    assert rest("/rest/unasked", "mwelby").status_code == 500


def test_django_tells_its_own_settings_from_the_clients() -> None:
    from chartgate.sdk.django import _gate

    gate = _gate({"url": "https://localhost:1", "token": "t", "device": lambda _: "managed"})
    assert isinstance(gate, Chartgate)
    gate.close()
