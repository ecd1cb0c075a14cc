"""FastAPI: checks as dependencies, answers disclosed field by field.

app = FastAPI()
protect(app, AsyncChartgate(...), subject=signed_in)

@app.get("/patients/{patient}/labs")
def labs(decision: Annotated[Decision, Depends(require("view", of("patient", labels=Lab)))]):
    return disclosed_response(load_labs(decision.patient), decision)
"""

from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from starlette.routing import Route

from chartgate.sdk.asked import ask, ask_async, identify
from chartgate.sdk.decision import Decision
from chartgate.sdk.disclose import Withheld, disclose
from chartgate.sdk.guard import of, public
from chartgate.sdk.labels import Labels
from chartgate.sdk.starlette import ChartgateMiddleware, Required, require

__all__ = [
    "ChartgateMiddleware",
    "Required",
    "ask",
    "ask_async",
    "disclosed_response",
    "identify",
    "of",
    "protect",
    "public",
    "require",
]


def protect(app: FastAPI, gate: Any, **settings: Any) -> None:
    """Put the application behind the middleware; ``settings`` are ``ChartgateMiddleware``'s.

    FastAPI's own pages (the description of the interface, its documentation) stay public.
    """
    own = (
        app.openapi_url,
        app.docs_url,
        app.redoc_url,
        app.swagger_ui_oauth2_redirect_url if app.docs_url else None,
    )
    paths = (*settings.pop("public_paths", ()), *(path for path in own if path))
    for route in app.routes:
        if isinstance(route, Route) and route.path in own:
            public("describes the interface, holds no data")(route.endpoint)
    app.add_middleware(ChartgateMiddleware, gate=gate, public_paths=paths, **settings)


def disclosed_response(
    thing: Any,
    decision: Decision,
    labels: Labels | None = None,
    *,
    withheld: Withheld = "absent",
    status: int = 200,
) -> JSONResponse:
    """What of an object, or a list of them, the decision shows. Nobody in between keeps it.

    What does not exist for whoever asks is 404, as if it were not there.
    """
    shown = disclose(thing, decision, labels, withheld=withheld)
    if shown is None:
        return JSONResponse(
            {"detail": "Not Found"}, status_code=404, headers={"Cache-Control": "no-store"}
        )
    return JSONResponse(
        jsonable_encoder(shown), status_code=status, headers={"Cache-Control": "no-store"}
    )
