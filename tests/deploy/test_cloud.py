"""The files for the clouds: each of a form that its cloud takes, and wired to the service."""

import json
from typing import NamedTuple

import pytest
import yaml
from support.manifests import (
    INSIDE,
    MEASURED_PEAK,
    ROOT,
    check_image,
    check_policies,
    check_schema,
    settings,
    stop_seconds,
    succeeds,
    tool,
)

CLOUD = ROOT / "deploy/cloud"
NAMES = sorted(file.stem for file in CLOUD.glob("*.yaml"))
BUILDS = ("deploy/image/build.sh serve ", "docker push $IMAGE")
APPLIES = {
    "aws-ecs": "aws cloudformation deploy",
    "google-cloud-run": "gcloud run services replace",
    "azure-container-apps": "az containerapp create",
    "azure-container-instances": "az container create",
}


class Template(yaml.SafeLoader):
    """CloudFormation's short forms: `!Ref x` as {"Ref": "x"}."""


def _short_form(loader, suffix, node):
    read = loader.construct_sequence if node.id == "sequence" else loader.construct_scalar
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": read(node)}


Template.add_multi_constructor("!", _short_form)


class Deployed(NamedTuple):
    """What a cloud needs to know about the service."""

    image: str
    port: int
    variables: dict[str, str]
    secrets: dict[str, object]
    probes: set[str]
    probed: set[int]
    memory: float  # MB
    grace: float  # seconds from SIGTERM to SIGKILL
    mounts: set[str]


def read(name):
    return yaml.load((CLOUD / f"{name}.yaml").read_text(), Template)  # noqa: S506 - safe


def aws_ecs():
    resources = read("aws-ecs")["Resources"]
    task = resources["TaskDefinition"]["Properties"]
    (container,) = task["ContainerDefinitions"]
    defaults = {k: v.get("Default") for k, v in read("aws-ecs")["Parameters"].items()}

    def plain(value):
        return defaults[value["Ref"]] if isinstance(value, dict) else value

    group = resources["TargetGroup"]["Properties"]
    image = container["Image"]["Fn::Sub"]
    for parameter in ("Repository", "Tag"):
        image = image.replace(f"${{{parameter}}}", defaults[parameter])
    return Deployed(
        image=image,
        port=container["PortMappings"][0]["ContainerPort"],
        variables={entry["Name"]: plain(entry["Value"]) for entry in container["Environment"]},
        secrets={entry["Name"]: entry["ValueFrom"] for entry in container["Secrets"]},
        probes={group["HealthCheckPath"], "/health/live"},
        probed={group["Port"]},
        memory=float(task["Memory"]),
        grace=container["StopTimeout"],
        mounts={mount["ContainerPath"] for mount in container["MountPoints"]},
    )


def environment(entries, secret):
    """The variables of a container and its secrets, which have the key `secret`."""
    return {
        "variables": {entry["name"]: entry["value"] for entry in entries if "value" in entry},
        "secrets": {entry["name"]: entry[secret] for entry in entries if secret in entry},
    }


def google_cloud_run():
    (container,) = read("google-cloud-run")["spec"]["template"]["spec"]["containers"]
    probes = [container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe")]
    return Deployed(
        image=container["image"],
        port=container["ports"][0]["containerPort"],
        **environment(container["env"], "valueFrom"),
        probes={probe["path"] for probe in probes},
        probed={probe["port"] for probe in probes},
        memory=float(container["resources"]["limits"]["memory"].removesuffix("Mi")),
        grace=10,  # as Cloud Run documents it
        mounts={"/state"},  # all of the file system can be written
    )


def azure_container_apps():
    properties = read("azure-container-apps")["properties"]
    (container,) = properties["template"]["containers"]
    probes = [probe["httpGet"] for probe in container["probes"]]
    return Deployed(
        image=container["image"],
        port=properties["configuration"]["ingress"]["targetPort"],
        **environment(container["env"], "secretRef"),
        probes={probe["path"] for probe in probes},
        probed={probe["port"] for probe in probes},
        memory=float(container["resources"]["memory"].removesuffix("Gi")) * 1024,
        grace=properties["template"]["terminationGracePeriodSeconds"],
        mounts={mount["mountPath"] for mount in container["volumeMounts"]},
    )


def azure_container_instances():
    properties = read("azure-container-instances")["properties"]
    (container,) = (entry["properties"] for entry in properties["containers"])
    assert container["ports"] == properties["ipAddress"]["ports"]
    probes = [container[kind]["httpGet"] for kind in ("readinessProbe", "livenessProbe")]
    return Deployed(
        image=container["image"],
        port=container["ports"][0]["port"],
        **environment(container["environmentVariables"], "secureValue"),
        probes={probe["path"] for probe in probes},
        probed={probe["port"] for probe in probes},
        memory=container["resources"]["limits"]["memoryInGB"] * 1024,
        grace=30,  # assumed: no figure is documented
        mounts={mount["mountPath"] for mount in container["volumeMounts"]},
    )


@pytest.fixture(params=NAMES)
def deployed(request):
    return globals()[request.param.replace("-", "_")]()


def test_each_cloud_has_its_file():
    assert set(NAMES) == set(APPLIES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "aws-ecs"])
def test_its_cloud_knows_every_field(name):
    check_schema(name, CLOUD / f"{name}.yaml")


def test_cloudformation_knows_every_field_and_policies_hold():
    file = CLOUD / "aws-ecs.yaml"
    succeeds(tool("cfn-lint"), "--non-zero-exit-code", "informational", file)
    check_policies("cloudformation", file)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_begins_with_the_commands_that_apply_it(name):
    head = (CLOUD / f"{name}.yaml").read_text().partition("\n\n")[0]
    commands = [line.strip("# ") for line in head.splitlines() if line.startswith("#   ")]
    assert any(APPLIES[name] in command for command in commands)
    (image,) = [command[6:] for command in commands if command.startswith("IMAGE=")]
    check_image(image, pushed=True)
    build, push = (next(i for i, c in enumerate(commands) if word in c) for word in BUILDS)
    assert build < push
    # The document has them too.
    documented = (ROOT / "docs/DEPLOY_CLOUDS.md").read_text().splitlines()
    assert [c for c in commands if c not in {line.strip() for line in documented}] == []


def test_the_service_accepts_its_variables_and_has_room_and_time(deployed):
    chosen = settings({name: v for name, v in deployed.variables.items() if name != "TMPDIR"})
    assert chosen.api_workers == 1
    assert chosen.api_port == deployed.port
    assert str(chosen.state_dir) in deployed.mounts
    assert chosen.model_uri == "/model"
    assert stop_seconds(chosen) < deployed.grace
    assert deployed.memory > 1.5 * MEASURED_PEAK


def test_keys_are_secrets_probes_reach_the_service_and_the_image_is_pinned(deployed):
    assert set(deployed.secrets) == {"API_KEYS"}
    assert deployed.probes == {"/health/ready", "/health/live"}
    assert deployed.probed == {deployed.port}
    check_image(deployed.image, pushed=True)


def test_roles_on_aws_may_do_what_is_needed_alone():
    resources = read("aws-ecs")["Resources"]
    assert "Policies" not in resources["TaskRole"]["Properties"]
    (policy,) = resources["ExecutionRole"]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = json.dumps(statement["Action"])
        assert "*" not in actions
        assert (statement["Resource"] == "*") == (actions == '"ecr:GetAuthorizationToken"')
    assert not any("ManagedPolicyArns" in r.get("Properties", {}) for r in resources.values())


def test_the_load_balancer_on_aws_leads_to_the_container():
    resources = read("aws-ecs")["Resources"]
    (container,) = resources["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    (target,) = resources["Service"]["Properties"]["LoadBalancers"]
    assert target["ContainerName"] == container["Name"]
    assert target["ContainerPort"] == resources["TargetGroup"]["Properties"]["Port"]
    assert container["ReadonlyRootFilesystem"] is True
    assert container["LinuxParameters"]["Capabilities"]["Drop"] == ["ALL"]
    check = " ".join(container["HealthCheck"]["Command"])
    assert f"127.0.0.1:{target['ContainerPort']}/health/live" in check


def test_the_load_balancer_on_aws_closes_what_the_ingress_closes():
    rule = read("aws-ecs")["Resources"]["InsideRule"]["Properties"]
    (condition,) = rule["Conditions"]
    assert set(condition["PathPatternConfig"]["Values"]) == INSIDE
    (action,) = rule["Actions"]
    assert action["FixedResponseConfig"]["StatusCode"] == "404"


def test_scaling_on_aws_counts_the_requests_that_kubernetes_does():
    policy = read("aws-ecs")["Resources"]["ByRequests"]["Properties"]
    target = policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
    monitoring = ROOT / "deploy/kubernetes/components/monitoring/kustomization.yaml"
    assert f'averageValue: "{target // 60}"' in monitoring.read_text()
