"""``chartgate policy …``: the commands' names, options and help; what they do is imported when run."""

import typer

from chartgate.cli import policy_life_cycle
from chartgate.cli.options import JsonOption, PoliciesOption, told

policy_app = typer.Typer(
    name="policy",
    no_args_is_help=True,
    help="Check the access policies, and decide which version is in force.",
    rich_markup_mode=None,
)
policy_life_cycle.add_to(policy_app)


@policy_app.command("test", short_help="Hold the policies against the scenarios.")
@told
def policy_test(
    policies: PoliciesOption = None,
    json: JsonOption = False,
) -> None:
    """Hold the policies against the scenarios: who must see what, written in plain words.

    Reads DIR/scenarios/*.toml. Shows every scenario that the policies do not fulfil, and exits
    with 1 if there is one.
    """
    from chartgate.cli.policy_scenarios import run_scenarios

    raise typer.Exit(run_scenarios(policies, json=json))
