"""Examples of the OpenAPI document: whole requests and answers of a hospital's applications.

The rule kept: each is what its schema says, and the service understands it (tested).
"""

from typing import Any, Final

_NURSE: Final = {"type": "User", "id": "nora.nurse"}
_LABS: Final = {
    "type": "Record",
    "id": "lab-4711",
    "properties": {"patient": "a1b2c3", "category": "labs"},
}
_AT: Final = {"log": "hospital.example/chartgate", "index": 48213}
_SET: Final = "0f" * 32

EXAMPLES: Final[dict[str, Any]] = {
    "evaluation": {
        "one category": {
            "value": {
                "subject": _NURSE,
                "action": {"name": "view"},
                "resource": _LABS,
                "context": {"purpose": "TREAT"},
            }
        },
        "a screen of fields": {
            "value": {
                "subject": _NURSE,
                "action": {"name": "view"},
                "resource": {
                    "type": "Record",
                    "id": "encounter-99",
                    "properties": {
                        "patient": "a1b2c3",
                        "fields": ["patients.birthdate", "patients.ssn", "observations.value"],
                    },
                },
            }
        },
    },
    "evaluation_answer": {
        "allowed": {
            "value": {
                "decision": True,
                "context": {
                    "policies": ["nurse_cares"],
                    "policy_set": _SET,
                    "audit": _AT,
                    "levels": {"labs": "full"},
                    "epoch": 911,
                },
            }
        },
        "denied": {
            "value": {
                "decision": False,
                "context": {
                    "policy_set": _SET,
                    "audit": _AT,
                    "levels": {"labs": "withheld"},
                    "obligations": [{"type": "break_glass"}],
                    "reason": {
                        "code": "no_permit",
                        "text": "None of your roles allows this for this patient.",
                        "clauses": ["45 CFR 164.514(d)(2)"],
                    },
                    "epoch": 911,
                },
            }
        },
    },
    "evaluations": {
        "one person, two categories": {
            "value": {
                "subject": _NURSE,
                "action": {"name": "view"},
                "context": {"purpose": "TREAT"},
                "evaluations": [
                    {"resource": _LABS},
                    {
                        "resource": {
                            "type": "Record",
                            "id": "bill-1",
                            "properties": {"patient": "a1b2c3", "category": "billing"},
                        }
                    },
                ],
                "options": {"evaluations_semantic": "execute_all"},
            }
        }
    },
    "evaluations_answer": {
        "both answered": {
            "value": {
                "evaluations": [
                    {"decision": True, "context": {"policies": ["nurse_cares"], "audit": _AT}},
                    {
                        "decision": False,
                        "context": {
                            "audit": _AT,
                            "reason": {
                                "code": "no_permit",
                                "text": "None of your roles allows this.",
                            },
                        },
                    },
                ]
            }
        }
    },
    "search_subject": {
        "who may see these labs": {
            "value": {
                "subject": {"type": "User"},
                "action": {"name": "view"},
                "resource": _LABS,
                "page": {"limit": 50},
            }
        }
    },
    "search_subject_answer": {
        "the only page": {
            "value": {
                "results": [_NURSE],
                "page": {"next_token": "", "count": 1},
                "context": {"policy_set": _SET, "audit": _AT},
            }
        }
    },
    "search_resource": {
        "what she may open": {
            "value": {
                "subject": _NURSE,
                "action": {"name": "open"},
                "resource": {"type": "Worklist"},
            }
        }
    },
    "search_resource_answer": {
        "the only page": {
            "value": {
                "results": [{"type": "Worklist", "id": "ward-3"}],
                "page": {"next_token": "", "count": 1},
                "context": {"policy_set": _SET, "audit": _AT},
            }
        }
    },
    "search_action": {
        "what she may do to these labs": {"value": {"subject": _NURSE, "resource": _LABS}}
    },
    "search_action_answer": {
        "the only page": {
            "value": {
                "results": [{"name": "view"}, {"name": "view_summary"}],
                "page": {"next_token": "", "count": 2},
                "context": {"policy_set": _SET, "audit": _AT},
            }
        }
    },
}
