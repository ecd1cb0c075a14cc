"""Django REST framework: a permission that asks, and serializers that disclose.

Beside ``chartgate.sdk.django.ChartgateMiddleware``, which answers what is refused:

    class LabsOf(ListAPIView):
        permission_classes = [allowed("view", of("patient", labels=LabSerializer.labels), partial=True)]
        serializer_class = LabSerializer

    class LabSerializer(Disclosed, ModelSerializer):
        labels = Labels.of({"value": "labs"}, patient="patient_id")
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.serializers import ListSerializer
from rest_framework.views import APIView

from chartgate.sdk import asked
from chartgate.sdk.decision import Decision
from chartgate.sdk.disclose import check_patient, disclose, lowered
from chartgate.sdk.errors import Misused
from chartgate.sdk.guard import Chosen, chosen, required
from chartgate.sdk.labels import Labels
from chartgate.sdk.questions import ActionLike, ResourceLike

AboutObject = Callable[[Any], ResourceLike]


class ChartgatePermission(BasePermission):  # type: ignore[misc]
    """Asks once for the route, and once for each object; the decision is ``request.decision``.

    A no is raised as ``AccessDenied``, with its reason, rather than DRF's wordless one.
    """

    action: ClassVar[ActionLike] = "view"
    resource: ClassVar[Chosen | None] = None
    """What the route is about; ``None``: only objects are asked about."""
    about: ClassVar[AboutObject | None] = None
    """From an object to what is asked about it."""
    partial: ClassVar[bool] = False

    def has_permission(self, request: Request, view: APIView) -> bool:
        resource = type(self).resource
        if resource is not None:
            self._ask(request, chosen(resource, view.kwargs))
        return True

    def has_object_permission(self, request: Request, view: APIView, thing: Any) -> bool:
        about = type(self).about
        if about is not None:
            self._ask(request, about(thing))
        elif type(self).resource is None:
            raise Misused("the permission names neither a resource nor what it is about")
        return True

    def _ask(self, request: Request, about: ResourceLike) -> None:
        # On Django's request, which the serializers and other middleware see.
        decision = required(asked.ask(self.action, about), about, partial=self.partial)
        request._request.decision = decision  # noqa: SLF001


def allowed(
    action: ActionLike,
    resource: Chosen | None = None,
    *,
    about: AboutObject | None = None,
    partial: bool = False,
) -> type[ChartgatePermission]:
    """A permission for ``permission_classes``."""
    if resource is None and about is None:
        raise Misused("say what the route is about, or how to ask about an object")
    # Functions of a class would be bound to its instances.
    return type(
        "Allowed",
        (ChartgatePermission,),
        {
            "action": action,
            "resource": staticmethod(resource) if callable(resource) else resource,
            "about": None if about is None else staticmethod(about),
            "partial": partial,
        },
    )


class DisclosedList(ListSerializer):  # type: ignore[misc]
    """Leaves out what does not exist for whoever asks."""

    def to_representation(self, data: Any) -> list[Any]:
        return [one for one in super().to_representation(data) if one is not None]


class Disclosed:
    """Before a serializer class: its fields are shown as far as the request's decision allows.

    ``labels``: by the serializer's field names; their forms are given the serialized value.
    ``patient`` and ``also`` of the labels look at the object itself.
    """

    labels: ClassVar[Labels]
    context: Mapping[str, Any]

    @classmethod
    def many_init(cls, *arguments: Any, **settings: Any) -> Any:
        made = super().many_init(*arguments, **settings)  # type: ignore[misc]
        if type(made) is ListSerializer:
            made.__class__ = DisclosedList
        return made

    def to_representation(self, instance: Any) -> Any:
        decision = self.context.get("decision")
        if decision is None and "request" in self.context:
            decision = getattr(self.context["request"], "decision", None)
        if not isinstance(decision, Decision):
            raise Misused("there is no decision: use a ChartgatePermission, or give one in context")
        check_patient(instance, self.labels, decision)
        data = super().to_representation(instance)  # type: ignore[misc]
        told = lowered(instance, self.labels)
        return disclose(data, decision, replace(told, patient=None))
