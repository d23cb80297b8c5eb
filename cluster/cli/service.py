"""`hivewire service`: what runs in the cluster."""

from __future__ import annotations

import click

from cluster.cli.client import Client, segment
from cluster.cli.document import Document
from cluster.cli.failure import Failure, Refused
from cluster.cli.logs import Style, print_logs
from cluster.cli.options import client, detach_options, format_option, list_options
from cluster.cli.output import Table, short, show, show_objects
from cluster.cli.progress import wait_until_converged
from cluster.cli.service_spec import changed_spec, new_spec, single_options, texts
from cluster.cli.task import show_tasks
from cluster.cli.values import filters as parse_filters

_HEADERS = {
    "ID": "ID", "Name": "NAME", "Mode": "MODE", "Replicas": "REPLICAS", "Image": "IMAGE",
    "Ports": "PORTS",
}  # fmt: skip
_NOT_FOUND = 404


@click.group()
def service() -> None:
    """Manage services."""


@service.command("ls")
@list_options
def list_services(*, filters: tuple[str, ...], style: str, quiet: bool, no_trunc: bool) -> None:
    """List the services, and how many of their tasks run."""
    wanted = parse_filters(filters)
    services = client().get("/services", {"filters": wanted, "status": "true"}).items()
    services.sort(key=lambda s: s.text("Spec.Name"))
    show(Table(_HEADERS, [_row(s, full=no_trunc) for s in services]), style, quiet=quiet)


def _row(item: Document, *, full: bool) -> dict[str, str]:
    running = item.number("ServiceStatus.RunningTasks")
    wanted = item.number("ServiceStatus.DesiredTasks")
    per_node = item.number("Spec.TaskTemplate.Placement.MaxReplicas")
    return {
        "ID": short(item.text("ID"), full=full),
        "Name": item.text("Spec.Name"),
        "Mode": "global" if item.get("Spec.Mode.Global") is not None else "replicated",
        "Replicas": f"{running}/{wanted}" + (f" (max {per_node} per node)" if per_node else ""),
        "Image": item.text("Spec.TaskTemplate.ContainerSpec.Image"),
        "Ports": ", ".join(
            f"*:{p.number('PublishedPort')}->{p.number('TargetPort')}/{p.text('Protocol')}"
            for p in item.items("Endpoint.Ports")
            if p.text("PublishMode") != "host"
        ),
    }


@service.command(context_settings={"ignore_unknown_options": False})
@click.option("--name", default="", help="Name of the service; else one is made up.")
@click.option("--mode", type=click.Choice(["replicated", "global"]), default="replicated",
              show_default=True)  # fmt: skip
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE")
@click.option("--env-file", multiple=True, metavar="FILE")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label of the service.")
@click.option("--container-label", multiple=True, metavar="KEY=VALUE", help="Label of its tasks.")
@click.option("--constraint", multiple=True, metavar="EXPR", help="node.role==worker and so on.")
@click.option("--placement-pref", multiple=True, metavar="spread=LABEL")
@click.option("--network", multiple=True, metavar="NETWORK", help="Network to join.")
@click.option("-p", "--publish", multiple=True, metavar="PORT", help="8080:80, 53:53/udp, ...")
@click.option("--host", multiple=True, metavar="NAME:ADDRESS", help="Extra line of /etc/hosts.")
@single_options
@detach_options
@click.argument("image", metavar="host|/ROOT/DIRECTORY")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def create(
    *, image: str, command: tuple[str, ...], detach: bool, quiet: bool, **options: object
) -> None:
    """Create a service: COMMAND runs as a process in each of its tasks.

    `host` runs it on the machine's own file system; a directory is made its root.
    """
    daemon = client()
    answer = daemon.post("/services/create", body=new_spec(image, command, options))
    service_id = answer.text("ID")
    click.echo(service_id)
    for warning in answer.texts("Warnings"):
        click.echo(warning, err=True)
    if not detach:
        wait_until_converged(daemon, service_id, quiet=quiet)


create.allow_interspersed_args = False


@service.command()
@click.argument("names", nargs=-1, required=True, metavar="SERVICE...")
@format_option
def inspect(*, names: tuple[str, ...], style: str) -> None:
    """Show everything about services."""
    daemon = client()
    query = {"insertDefaults": "true"}
    show_objects([daemon.get(f"/services/{segment(name)}", query) for name in names], style)


@service.command("ps")
@click.argument("names", nargs=-1, required=True, metavar="SERVICE...")
@list_options
def tasks(
    *, names: tuple[str, ...], filters: tuple[str, ...], style: str, quiet: bool, no_trunc: bool
) -> None:
    """List the tasks of services, with those that ended before."""
    daemon = client()
    ids = [daemon.get(f"/services/{segment(name)}").text("ID") for name in names]
    query = {**parse_filters(filters), "service": ids}
    show_tasks(daemon, query, style, quiet=quiet, full=no_trunc)


@service.command()
@click.argument("scales", nargs=-1, required=True, metavar="SERVICE=REPLICAS...")
@detach_options
def scale(*, scales: tuple[str, ...], detach: bool, quiet: bool) -> None:
    """Change the number of tasks of replicated services."""
    wanted: list[tuple[str, int]] = []
    for text in scales:
        name, _, number = text.partition("=")
        if not name or not (number.isascii() and number.isdecimal()):
            raise click.UsageError(f"invalid scale {text!r}: use SERVICE=REPLICAS")
        wanted.append((name, int(number)))
    daemon = client()
    ids = [_scale(daemon, name, replicas) for name, replicas in wanted]
    if not detach:
        for service_id in ids:
            wait_until_converged(daemon, service_id, quiet=quiet)


def _scale(daemon: Client, name: str, replicas: int) -> str:
    item = daemon.get(f"/services/{segment(name)}")
    if item.get("Spec.Mode.Replicated") is None:
        raise Failure(f"{name}: scale can only be used with replicated mode")
    spec = {**item.fields("Spec"), "Mode": {"Replicated": {"Replicas": replicas}}}
    _post_update(daemon, item, spec, {})
    click.echo(f"{name} scaled to {replicas}")
    return item.text("ID")


@service.command()
@click.argument("name", metavar="SERVICE")
@click.option("--image", help="What the tasks run on: host, or a root directory.")
@click.option("--args", help="New command, split at blanks as a shell does.")
@click.option("--env-add", multiple=True, metavar="KEY=VALUE")
@click.option("--env-rm", multiple=True, metavar="KEY")
@click.option("--label-add", multiple=True, metavar="KEY=VALUE")
@click.option("--label-rm", multiple=True, metavar="KEY")
@click.option("--container-label-add", multiple=True, metavar="KEY=VALUE")
@click.option("--container-label-rm", multiple=True, metavar="KEY")
@click.option("--constraint-add", multiple=True, metavar="EXPR")
@click.option("--constraint-rm", multiple=True, metavar="EXPR")
@click.option("--network-add", multiple=True, metavar="NETWORK")
@click.option("--network-rm", multiple=True, metavar="NETWORK")
@click.option("--publish-add", multiple=True, metavar="PORT")
@click.option("--publish-rm", multiple=True, metavar="TARGET_PORT")
@click.option("--force", is_flag=True, help="Replace all tasks, even if nothing else changes.")
@click.option("--rollback", is_flag=True, help="Go back to the spec before the last update.")
@single_options
@detach_options
def update(*, name: str, rollback: bool, detach: bool, quiet: bool, **options: object) -> None:
    """Change a service; its tasks are replaced when they must be."""
    daemon = client()
    item = daemon.get(f"/services/{segment(name)}")
    if rollback:
        _post_update(daemon, item, item.fields("Spec"), {"rollback": "previous"})
    else:
        prepared = _prepare(daemon, options)
        _post_update(daemon, item, changed_spec(item.fields("Spec"), prepared), {})
    click.echo(name)
    if not detach:
        wait_until_converged(daemon, item.text("ID"), quiet=quiet)


def _prepare(daemon: Client, options: dict[str, object]) -> dict[str, object]:
    """Return the options with the command split, and networks to leave named by id."""
    prepared = dict(options)
    if options["args"] is not None:
        import shlex  # noqa: PLC0415  (used by this option only)

        prepared["args"] = shlex.split(str(options["args"]))
    prepared["network_rm"] = tuple(
        daemon.get(f"/networks/{segment(network)}").text("Id")
        for network in texts(options, "network_rm")
    )
    return prepared


def _post_update(
    daemon: Client, item: Document, spec: dict[str, object], query: dict[str, str]
) -> None:
    version = str(item.number("Version.Index"))
    path = f"/services/{segment(item.text('ID'))}/update"
    answer = daemon.post(path, {"version": version, **query}, spec)
    for warning in answer.texts("Warnings"):
        click.echo(warning, err=True)


@service.command()
@click.argument("name", metavar="SERVICE")
@detach_options
def rollback(*, name: str, detach: bool, quiet: bool) -> None:
    """Go back to the spec before the last update."""
    daemon = client()
    item = daemon.get(f"/services/{segment(name)}")
    _post_update(daemon, item, item.fields("Spec"), {"rollback": "previous"})
    click.echo(name)
    if not detach:
        wait_until_converged(daemon, item.text("ID"), quiet=quiet)


@service.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="SERVICE...")
def remove(*, names: tuple[str, ...]) -> None:
    """Delete services; their tasks are stopped."""
    daemon = client()
    failures: list[str] = []
    for name in names:
        try:
            daemon.delete(f"/services/{segment(name)}")
            click.echo(name)
        except Refused as error:
            failures.append(error.format_message())
    if failures:
        raise Failure("\n".join(failures))


@service.command()
@click.argument("name", metavar="SERVICE|TASK")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@click.option("-n", "--tail", default="all", show_default=True, metavar="N", help="Last lines.")
@click.option("--since", default="", help="From this time on: RFC 3339, or Unix seconds.")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("--raw", is_flag=True, help="Print no names before the lines.")
@click.option("--no-task-ids", is_flag=True)
@click.option("--no-trunc", is_flag=True)
@click.option("--no-resolve", is_flag=True)
def logs(
    *,
    name: str,
    follow: bool,
    tail: str,
    since: str,
    timestamps: bool,
    raw: bool,
    no_task_ids: bool,
    no_trunc: bool,
    no_resolve: bool,
) -> None:
    """Print what the tasks of a service wrote, or one task."""
    daemon = client()
    query = {"stdout": "1", "stderr": "1", "tail": tail}
    query |= {
        key: value
        for key, value in (
            ("follow", "1" if follow else ""), ("timestamps", "1" if timestamps else ""),
            ("since", since),
        )
        if value
    }  # fmt: skip
    style = Style(raw=raw, task_ids=not no_task_ids, full=no_trunc, resolve=not no_resolve)
    try:
        print_logs(daemon, f"/services/{segment(name)}/logs", query, style)
    except Refused as error:
        if error.status != _NOT_FOUND:
            raise
        try:
            print_logs(daemon, f"/tasks/{segment(name)}/logs", query, style)
        except Refused as none:
            if none.status != _NOT_FOUND:
                raise
            raise Failure(f"no such task or service: {name}") from None
