"""A schema's declarations in Cedar's JSON form, written independently of the reader under test."""

from typing import Any

from chartgate.cedar.schema import (
    Attribute,
    EntityRef,
    ExtensionType,
    PrimitiveType,
    RecordType,
    Schema,
    SetType,
    Type,
)


def type_json(kind: Type) -> dict[str, Any]:
    match kind:
        case PrimitiveType("Bool"):
            return {"type": "Boolean"}
        case PrimitiveType(name):
            return {"type": name}
        case ExtensionType(name):
            return {"type": "Extension", "name": name}
        case EntityRef(name):
            return {"type": "Entity", "name": name}
        case SetType(element):
            return {"type": "Set", "element": type_json(element)}
        case RecordType(attributes):
            return {"type": "Record", "attributes": attributes_json(attributes)}
    raise TypeError(kind)


def attributes_json(attributes: Any) -> dict[str, Any]:
    def one(attribute: Attribute) -> dict[str, Any]:
        # Required is the default: said only where it is not so.
        return type_json(attribute.type) | ({} if attribute.required else {"required": False})

    return {name: one(attribute) for name, attribute in attributes.items()}


def schema_json(schema: Schema) -> dict[str, Any]:
    document: dict[str, Any] = {}

    def space(name: str) -> dict[str, Any]:
        return document.setdefault(name, {"entityTypes": {}, "actions": {}})

    for name, entity in schema.entities.items():
        namespace, _, short = name.rpartition("::")
        form: dict[str, Any] = {}
        if entity.enum is not None:
            form["enum"] = list(entity.enum)
        else:
            form["shape"] = {"type": "Record", "attributes": attributes_json(entity.attributes)}
            form["memberOfTypes"] = sorted(entity.parents)
            if entity.tags is not None:
                form["tags"] = type_json(entity.tags)
        space(namespace)["entityTypes"][short] = form
    for uid, action in schema.actions.items():
        namespace = uid.type.rpartition("::")[0]
        form = {"memberOf": [{"type": p.type, "id": p.id} for p in sorted(action.parents)]}
        if action.principals or action.resources:
            form["appliesTo"] = {
                "principalTypes": list(action.principals),
                "resourceTypes": list(action.resources),
                "context": type_json(action.context),
            }
        space(namespace)["actions"][uid.id] = form
    return document
