"""The manifests, as `kubectl kustomize` renders them: valid, safe, and wired to the service."""

import itertools
import json
import re
import shutil
import subprocess
from functools import cache
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes_validate import utils
from mlflow.server.security_utils import is_allowed_host_header
from support.manifests import (
    COMPOSE,
    IMAGES,
    INSIDE,
    MEASURED_PEAK,
    ROOT,
    check_image,
    check_policies,
    check_schema,
    settings,
    stop_seconds,
    succeeds,
)

from monitoring import kubernetes
from monitoring.drift.__main__ import DRIFT
from monitoring.drift.__main__ import parse_options as drift_options
from monitoring.drift.prometheus_gauges import Gauges
from monitoring.pipeline_exporter import PORT
from pipeline.retrain import _options as retrain_options
from serve.app import create_app
from serve.settings import Settings
from serve.telemetry.metrics import Metrics

pytestmark = pytest.mark.system("kubectl", "kubernetes-client")  # 1.21 or later: components

KUBERNETES = ROOT / "deploy/kubernetes"
DASHBOARDS = ROOT / "monitoring/grafana/dashboards"
BACKUP = ROOT / "deploy/backup"
REGISTRY = ROOT / "deploy/registry"
NAME = "app.kubernetes.io/name"
NAMESPACES = {"dev": "digit-platform-dev", "prod": "digit-platform"}
# Schemas of kinds that Kubernetes does not know: the Prometheus operator's and the Gateway API's.
CUSTOM = {
    "ServiceMonitor": "service-monitor",
    "PrometheusRule": "prometheus-rule",
    "Probe": "probe",
    "HTTPRoute": "http-route",
}
# What it gives each target; `job` is set anew by each ServiceMonitor.
OF_THE_OPERATORS_TARGETS = {
    *("namespace", "service", "pod", "container", "endpoint", "job", "instance", "node"),
}
RESOURCES_BY_OVERLAY = {"dev": {"Deployment", "CronJob"}, "prod": {"HTTPRoute", "ServiceMonitor"}}


class Rendered(list):
    """The documents of an overlay."""

    def __init__(self, folder):
        super().__init__(yaml.safe_load_all(succeeds("kubectl", "kustomize", folder)))
        self.name = folder.name

    def all(self, kind):
        return [document for document in self if document["kind"] == kind]

    def one(self, kind, name="digit-platform"):
        (found,) = (d for d in self.all(kind) if d["metadata"]["name"] == name)
        return found

    def names(self, kind):
        return {document["metadata"]["name"] for document in self.all(kind)}

    def pods(self):
        """The templates of pods by the name of what makes them."""
        for document in self.all("Deployment") + self.all("CronJob"):
            spec = document["spec"].get("jobTemplate", document)["spec"]
            yield document["metadata"]["name"], spec["template"]

    def containers(self):
        for _, pod in self.pods():
            yield from pod["spec"].get("initContainers", [])
            yield from pod["spec"]["containers"]

    def pod(self, name="digit-platform"):
        return dict(self.pods())[name]["spec"]

    def container(self, name="digit-platform"):
        """The pod's container; the first where others stand beside it."""
        return self.pod(name)["containers"][0]

    def policy(self, name):
        return self.one("NetworkPolicy", name)["spec"]

    def peers(self, rule, way):
        """Whose pods a policy's rule lets in (`from`) or reaches (`to`)."""
        return [self.labelled(peer["podSelector"]) for peer in rule[way]]

    def variables(self):
        """What the service finds in its environment; None where a secret has it."""
        (source,) = self.container()["envFrom"]
        plain = self.one("ConfigMap", source["configMapRef"]["name"])["data"]
        return plain | {entry["name"]: entry.get("value") for entry in self.container()["env"]}

    def labelled(self, selector):
        """Whose pods the selector selects."""
        return {name for name, pod in self.pods() if matches(selector, pod["metadata"]["labels"])}


def matches(selector, labels):
    wanted = selector.get("matchLabels", {}).items()
    among = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in among)
    return wanted <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in among
    )


def pods_of(service):
    """Whose pods a service leads to; a headless one has the addresses of all of them."""
    name = service["metadata"]["name"]
    if service["spec"].get("clusterIP") == "None":
        return name.removesuffix("-pods")
    return name.removesuffix("-read")


@pytest.fixture(scope="module", params=["dev", "prod"])
def rendered(request):
    return Rendered(KUBERNETES / "overlays" / request.param)


@pytest.fixture(scope="module")
def prod():
    return Rendered(KUBERNETES / "overlays/prod")


@pytest.fixture
def with_component(tmp_path):
    """Renders an overlay with one more component."""

    def render(overlay, component):
        for folder in (KUBERNETES, DASHBOARDS, BACKUP, REGISTRY):
            shutil.copytree(folder, tmp_path / folder.relative_to(ROOT))
        file = tmp_path / "deploy/kubernetes/overlays" / overlay / "kustomization.yaml"
        written = yaml.safe_load(file.read_text())
        written["components"].append(f"../../components/{component}")
        file.write_text(yaml.safe_dump(written))
        return Rendered(file.parent)

    return render


@pytest.fixture(params=["gateway", "ingress"])
def way_in(request, prod, with_component):
    """What is rendered with one of the two ways in from outside."""
    return prod if request.param == "gateway" else with_component("dev", "ingress")


# ---- valid


@pytest.fixture
def overlays(prod, with_component):
    """Both overlays, each with another of the two ways in from outside."""
    dev = with_component("dev", "ingress")
    assert dev.names("Ingress") == {"digit-platform"}
    for rendered in (dev, prod):
        assert {d["kind"] for d in rendered} >= RESOURCES_BY_OVERLAY[rendered.name]
    return [dev, prod]


def written(documents, file):
    file.write_text(yaml.safe_dump_all(documents))
    return file


@pytest.mark.parametrize("version", ["1.31.0", "1.37.0"])
def test_kubernetes_knows_every_field(overlays, version, monkeypatch):
    read = cache(utils.schema_contents)  # once, not for each document: it has all definitions
    monkeypatch.setattr(utils, "schema_contents", read)
    for document in itertools.chain(*overlays):
        if document["kind"] not in CUSTOM:
            utils.validate(document, version, strict=True)


def test_policies_hold(overlays, tmp_path):
    file = tmp_path / "rendered.yaml"
    check_policies("kubernetes", written(itertools.chain(*overlays), file))


@pytest.mark.parametrize(
    ("kind", "count"),
    [("ServiceMonitor", 3), ("PrometheusRule", 1), ("Probe", 1), ("HTTPRoute", 1)],
)
def test_every_field_of_a_custom_kind_is_known(prod, tmp_path, kind, count):
    documents = prod.all(kind)
    assert len(documents) == count
    for document in documents:
        check_schema(CUSTOM[kind], written([document], tmp_path / "document.yaml"))


def test_everything_is_in_the_namespace_of_its_overlay(rendered):
    namespace = NAMESPACES[rendered.name]
    assert rendered.names("Namespace") == {namespace}
    assert {d["metadata"].get("namespace", namespace) for d in rendered} == {namespace}
    labels = rendered.one("Namespace", namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


# ---- wired


def test_the_service_accepts_its_variables(rendered):
    chosen = settings(rendered.variables())
    assert chosen.api_workers == 1
    assert str(chosen.api_host) == "0.0.0.0"  # noqa: S104 - in a pod of its own
    assert chosen.followed


def test_probes_ask_the_service_where_it_answers(rendered):
    container, chosen = rendered.container(), settings(rendered.variables())
    (port,) = container["ports"]
    assert port["containerPort"] == chosen.api_port
    paths = create_app(Settings(state_dir="nowhere")).openapi()["paths"]
    for probe, path in {
        "startupProbe": "/health/live",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    }.items():
        assert path in paths
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}


def test_the_pod_may_finish_what_it_has_begun(rendered):
    chosen = settings(rendered.variables())
    assert chosen.drain_seconds >= 5  # until no node sends it anything
    assert rendered.pod()["terminationGracePeriodSeconds"] > stop_seconds(chosen)


def test_selectors_select_the_pods_that_they_mean(rendered):
    for document in rendered.all("Deployment"):
        name = document["metadata"]["name"]
        assert rendered.labelled(document["spec"]["selector"]) == {name}
    for document in rendered.all("Service"):
        selector = {"matchLabels": document["spec"]["selector"]}
        assert rendered.labelled(selector) == {pods_of(document)}
    for document in rendered.all("PodDisruptionBudget"):
        assert rendered.labelled(document["spec"]["selector"]) == {"digit-platform"}
    for constraint in rendered.pod()["topologySpreadConstraints"]:
        assert rendered.labelled(constraint["labelSelector"]) == {"digit-platform"}
    for document in rendered.all("NetworkPolicy"):
        assert rendered.labelled(document["spec"]["podSelector"])


def test_what_is_referred_to_exists(rendered):
    for _, pod in rendered.pods():
        spec = pod["spec"]
        assert spec["serviceAccountName"] in rendered.names("ServiceAccount")
        for container in spec.get("initContainers", []) + spec["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}
        claims = [
            v["persistentVolumeClaim"] for v in spec["volumes"] if v.get("persistentVolumeClaim")
        ]
        assert {claim["claimName"] for claim in claims} <= rendered.names("PersistentVolumeClaim")
    for document in rendered.all("Service"):
        (port,) = document["spec"]["ports"]
        containers = rendered.pod(pods_of(document))["containers"]
        assert port["targetPort"] in {p["name"] for c in containers for p in c["ports"]}


def test_the_service_writes_where_it_may(rendered):
    mounts = {m["mountPath"] for m in rendered.container()["volumeMounts"] if not m.get("readOnly")}
    assert mounts == {str(settings(rendered.variables()).state_dir), "/tmp"}  # noqa: S108


def test_replicas_are_the_autoscalers_or_one_that_writes_to_a_state_that_lasts(rendered):
    deployment = rendered.one("Deployment")
    volumes = {volume["name"]: volume for volume in rendered.pod()["volumes"]}
    scaled = bool(rendered.all("HorizontalPodAutoscaler"))
    assert scaled != ("persistentVolumeClaim" in volumes["state"])
    if scaled:
        spec = rendered.one("HorizontalPodAutoscaler")["spec"]
        assert spec["scaleTargetRef"] == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": deployment["metadata"]["name"],
        }
        assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
        assert "replicas" not in deployment["spec"]
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    else:
        assert deployment["spec"]["replicas"] == 1
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_images_are_ours_and_pinned(rendered):
    mlflow = re.search(r"^mlflow==(\S+)", (ROOT / "requirements/train.txt").read_text(), re.M)[1]
    images = {container["image"] for container in rendered.containers()}
    of_docker = ["mlflow-read", "postgres"] if rendered.name == "prod" else ["mlflow-read"]
    others = {f"docker.io/library/{COMPOSE['services'][name]['image']}" for name in of_docker}
    others.add(f"ghcr.io/mlflow/mlflow:v{mlflow}-full")
    ours = images - others
    assert images > others
    assert {image.rpartition(":")[0].rpartition("/")[2] for image in ours} == IMAGES
    for image in ours:
        check_image(image, pushed=rendered.name == "prod")


# ---- scaling


def test_the_autoscaler_has_a_processor_and_a_request_to_go_by(prod):
    metrics = {m["type"]: m for m in prod.one("HorizontalPodAutoscaler")["spec"]["metrics"]}
    assert metrics["Resource"]["resource"]["name"] == "cpu"
    assert "cpu" in prod.container()["resources"]["requests"]
    wanted = metrics["Pods"]["pods"]["metric"]["name"]
    values = yaml.safe_load(
        (KUBERNETES / "components/monitoring/prometheus-adapter.yaml").read_text()
    )
    (rule,) = values["rules"]["custom"]
    assert rule["name"]["as"] == wanted
    series = rule["seriesQuery"].partition("{")[0]
    exposed, _ = Metrics().render("")
    assert f"# TYPE {series} counter" in exposed.decode()


def labels_of_metrics():
    """Of the service by the table that is made of its code; of the drift job; of the exporter."""
    table = json.loads((ROOT / "docs/tables/metrics.json").read_text())["rows"]
    yield from re.findall(r"\w+", " ".join(row[2] for row in table))
    for gauge in Gauges().registry._collector_to_names:
        yield from gauge._labelnames
    exporter = (ROOT / "monitoring/pipeline_exporter.py").read_text()
    for call in re.findall(r"_family\(([^)]*)\)", exporter):
        yield from re.findall(r'"([a-z_]+)"', call)


@pytest.mark.parametrize("name", ["digit-platform", "drift", "pipeline"])
def test_no_label_of_a_metric_is_one_that_the_operator_sets(prod, name):
    """Prometheus would call the metric's `exported_…`, and a rule that names it would see none."""
    (endpoint,) = prod.one("ServiceMonitor", name)["spec"]["endpoints"]
    dropped = {r["regex"] for r in endpoint["relabelings"] if r.get("action") == "labeldrop"}
    assert set(labels_of_metrics()) >= {"endpoint", "predicted_class", "feature", "alias"}
    assert not set(labels_of_metrics()) & (OF_THE_OPERATORS_TARGETS - dropped)


def test_its_rules_are_those_of_prometheus_with_the_job_that_they_name(prod):
    rules = yaml.safe_load(kubernetes.rendered())
    assert prod.one("PrometheusRule")["spec"] == rules["spec"]
    assert kubernetes.TARGET.read_text() == kubernetes.rendered()
    (endpoint,) = prod.one("ServiceMonitor")["spec"]["endpoints"]
    assert {"targetLabel": "job", "replacement": "digits"} in endpoint["relabelings"]


def test_grafana_finds_the_dashboards(prod):
    found = prod.one("ConfigMap", "digit-platform-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {file.name: file.read_text() for file in DASHBOARDS.glob("*.json")}
    assert len(str(found)) < 256 * 1024  # what `kubectl apply` can keep beside it


def test_memory_holds_what_was_measured(rendered):
    resources = rendered.container()["resources"]
    assert resources["requests"]["memory"] == "256Mi"
    assert int(resources["limits"]["memory"].removesuffix("Mi")) > 1.5 * MEASURED_PEAK


def test_no_pod_can_fill_the_disk_of_its_node(rendered):
    for name, pod in rendered.pods():
        for volume in pod["spec"].get("volumes", ()):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), (name, volume)
    for container in rendered.containers():
        for bound in ("requests", "limits"):
            assert "ephemeral-storage" in container["resources"][bound], container["name"]


# ---- safe


def test_pods_may_do_nothing_that_they_need_not(rendered):
    for name, pod in rendered.pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert (
            spec["securityContext"].items()
            >= {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            }.items()
        )
        # MLflow reads MLFLOW_PORT, which a link to the service `mlflow` would set to an address.
        assert spec["enableServiceLinks"] is False, name
    for container in rendered.containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}
    assert all(d["automountServiceAccountToken"] is False for d in rendered.all("ServiceAccount"))
    assert not {d["kind"] for d in rendered} & {"Role", "ClusterRole", "RoleBinding", "Secret"}


def test_prod_does_not_start_without_its_keys(rendered):
    keys = next(entry for entry in rendered.container()["env"] if entry["name"] == "API_KEYS")
    optional = keys["valueFrom"]["secretKeyRef"].get("optional", False)
    assert optional == (rendered.name == "dev")


def test_the_database_of_mlflow_is_a_secret_in_prod(rendered):
    for container in rendered.containers():
        for entry in container.get("env", []):
            if entry["name"] == "MLFLOW_BACKEND_STORE_URI":
                assert ("value" in entry) == (rendered.name == "dev")


def test_nothing_is_let_through_that_no_policy_names(rendered):
    assert rendered.policy("default-deny") == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for policy in rendered.all("NetworkPolicy"):
        rules = policy["spec"].get("ingress", []) + policy["spec"].get("egress", [])
        assert all(rule.get("ports") for rule in rules)
    dns = rendered.policy("dns")
    assert {p["port"] for p in dns["egress"][0]["ports"]} == {53}
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in dns["egress"][0]["to"]
    assert rendered.labelled(dns["podSelector"]) == {name for name, _ in rendered.pods()}


def check_way(rendered, out, into, users, target):
    """That policies lead `users` to the one port of the service `target`, and nobody else."""
    (port,) = rendered.one("Service", target)["spec"]["ports"]
    assert rendered.labelled(rendered.policy(out)["podSelector"]) == users
    (leaving,), (entering,) = rendered.policy(out)["egress"], rendered.policy(into)["ingress"]
    assert rendered.peers(leaving, "to") == [{target.removesuffix("-read")}]
    assert rendered.peers(entering, "from") == [users]
    assert leaving["ports"] == entering["ports"] == [{"port": port["port"]}]


def test_mlflow_is_reached_by_those_who_need_it_alone(rendered):
    users = {"pipeline", "retrain", "model-rollback"}
    check_way(rendered, "to-mlflow", "mlflow", users, "mlflow")


def test_the_service_reaches_what_reads_mlflow_alone(rendered):
    check_way(rendered, "to-mlflow-read", "mlflow-read", {"digit-platform"}, "mlflow-read")
    for policy in rendered.all("NetworkPolicy"):
        if "digit-platform" in rendered.labelled(policy["spec"]["podSelector"]):
            ways = [rule["ports"] for rule in policy["spec"].get("egress", [])]
            assert all({"port": 5000} not in ports for ports in ways)
    server, reader = rendered.pod("mlflow")["containers"]
    of_compose = COMPOSE["services"]["mlflow-read"]
    assert reader["command"] == [word.replace("$$", "$") for word in of_compose["command"]]
    (port,) = server["ports"]
    assert reader["env"] == [{"name": "MLFLOW", "value": f"127.0.0.1:{port['containerPort']}"}]
    (volume,) = (v for v in rendered.pod("mlflow")["volumes"] if v["name"] == "read")
    files = rendered.one("ConfigMap", volume["configMap"]["name"])["data"]
    assert files == {"nginx.conf": (REGISTRY / "nginx.conf").read_text()}
    assert f"listen {reader['ports'][0]['containerPort']};" in files["nginx.conf"]


def check_from(rendered, policy, namespace):
    """That the policy lets that namespace in."""
    (rule,) = rendered.policy(policy)["ingress"]
    (peer,) = rule["from"]
    labels = peer["namespaceSelector"]["matchLabels"]
    assert labels == {"kubernetes.io/metadata.name": namespace}
    assert rule["ports"] == [{"port": "http"}]


def test_the_service_is_reached_from_the_gateway_prometheus_and_the_drift_job(prod):
    policies = {name for name in prod.names("NetworkPolicy") if name.startswith("from-")}
    assert policies == {"from-gateway", "from-prometheus", "from-drift"}
    (gateway,) = prod.one("HTTPRoute")["spec"]["parentRefs"]
    check_from(prod, "from-gateway", gateway["namespace"])
    check_from(prod, "from-prometheus", "monitoring")
    (rule,) = prod.policy("from-drift")["ingress"]
    (users,) = prod.peers(rule, "from")
    assert [set(peer) for peer in rule["from"]] == [{"podSelector"}]
    assert users >= {"drift", "retrain"}
    for name in ("pipeline-to-service", "drift"):
        (out,) = prod.policy(name)["egress"]
        assert prod.peers(out, "to") == [{"digit-platform"}]
        assert out["ports"] == [{"port": "http"}]


def check_monitored(prod, job, monitor):
    """That a ServiceMonitor finds the job's port; its endpoint."""
    service = prod.one("Service", job)
    found = prod.one("ServiceMonitor", monitor)["spec"]
    assert matches(found["selector"], service["metadata"]["labels"])
    (endpoint,) = found["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    return endpoint


def test_prometheus_finds_the_metrics_of_the_service_alone(prod):
    assert check_monitored(prod, "digit-platform", "digit-platform")["path"] == "/metrics"
    selector = prod.one("ServiceMonitor")["spec"]["selector"]
    assert not matches(selector, prod.one("Service", "mlflow")["metadata"]["labels"])


def test_the_probe_asks_by_the_address_of_callers_as_prometheus_does_elsewhere(prod):
    probe = prod.one("Probe")["spec"]
    scraped = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    (job,) = (job for job in scraped["scrape_configs"] if job["job_name"] == probe["jobName"])
    assert job["params"] == {"module": [probe["module"]]}
    (address,) = map(urlsplit, probe["targets"]["staticConfig"]["static"])
    (elsewhere,) = map(urlsplit, job["static_configs"][0]["targets"])
    assert (address.scheme, address.path) == ("https", elsewhere.path)
    assert [address.hostname] == prod.one("HTTPRoute")["spec"]["hostnames"]


def test_the_drift_job_asks_every_pod_and_prometheus_asks_it(prod):
    job = prod.container("drift")
    chosen = drift_options([*job["command"], *job["args"]][3:])
    (url,) = map(urlsplit, chosen.url)
    pods = prod.one("Service", url.hostname)
    (port,) = pods["spec"]["ports"]
    assert pods["spec"]["clusterIP"] == "None"
    assert port["port"] == url.port == settings(prod.variables()).api_port
    assert not matches(
        prod.one("ServiceMonitor")["spec"]["selector"], pods["metadata"]["labels"]
    )  # which would count each request twice
    assert job["ports"] == [{"name": "metrics", "containerPort": chosen.port}]
    assert chosen.every
    assert str(chosen.out) in {mount["mountPath"] for mount in job["volumeMounts"]}
    check_monitored(prod, "drift", "drift")


def test_the_exporter_asks_mlflow_and_prometheus_asks_it_by_the_name_that_dashboards_know(prod):
    container = prod.container("pipeline-exporter")
    assert container["command"][:3] == ["python", "-m", "monitoring.pipeline_exporter"]
    assert container["command"][3:] == ["--address", "0.0.0.0", "--port", str(PORT)]  # noqa: S104
    assert container["ports"] == [{"name": "metrics", "containerPort": PORT}]
    endpoint = check_monitored(prod, "pipeline-exporter", "pipeline")
    assert {"targetLabel": "job", "replacement": "pipeline"} in endpoint["relabelings"]
    users = {"pipeline-exporter"}
    check_way(prod, "pipeline-exporter", "mlflow-from-exporter", users, "mlflow")


def ways(rendered):
    """Yield kind and path of what an HTTPRoute or an Ingress leads to the service."""
    (port,) = rendered.one("Service")["spec"]["ports"]
    for document in rendered.all("HTTPRoute"):
        for rule in document["spec"]["rules"]:
            assert rule["backendRefs"] == [{"name": "digit-platform", "port": port["port"]}]
            yield from ((m["path"]["type"], m["path"]["value"]) for m in rule["matches"])
    for document in rendered.all("Ingress"):
        (rule,) = document["spec"]["rules"]
        for path in rule["http"]["paths"]:
            service = {"name": "digit-platform", "port": {"name": port["name"]}}
            assert path["backend"] == {"service": service}
            yield path["pathType"], path["path"]


def test_the_way_in_leads_to_every_path_but_the_metrics(way_in):
    led = list(ways(way_in))

    def reached(path):
        return any(
            path == value or ("Prefix" in kind and path.startswith(f"{value}/"))
            for kind, value in led
        )

    documented = create_app(Settings(state_dir="nowhere")).openapi()["paths"]
    pages = {"/", "/api/docs", "/api/redoc", "/openapi.json", "/static/page.js", "/predict/stream"}
    assert {path for path in {*documented, *pages} if not reached(path)} == INSIDE


def test_the_way_in_is_trusted_with_the_callers_address(way_in):
    assert settings(way_in.variables()).trusted_proxies


def test_the_gateway_waits_for_slow_bodies_and_for_drawing(prod):
    rules = prod.one("HTTPRoute")["spec"]["rules"]
    waits = {
        match["path"]["value"]: rule["timeouts"]["request"]
        for rule in rules
        for match in rule["matches"]
    }
    assert waits.pop("/predict/stream") == "0s"  # for ever
    (others,) = set(waits.values())
    chosen = settings(prod.variables())
    assert int(others.removesuffix("s")) > chosen.head_seconds + chosen.body_seconds


def test_the_ingress_has_a_certificate_and_takes_the_largest_request(with_component):
    rendered = with_component("dev", "ingress")
    ingress = rendered.one("Ingress")
    (rule,), (tls,) = ingress["spec"]["rules"], ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]]
    check_from(rendered, "from-ingress", "ingress-nginx")
    size = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    largest = 4 * settings(rendered.variables()).max_image_bytes * 4 / 3
    assert int(size.removesuffix("m")) * 2**20 > largest


# ---- MLflow and the pipeline


def test_mlflow_answers_to_the_name_that_it_is_called_by(rendered):
    server = rendered.container("mlflow")
    variables = {entry["name"]: entry.get("value") for entry in server["env"]}
    allowed = variables["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    reading = rendered.variables()["MLFLOW_TRACKING_URI"]
    called = {
        entry["value"]
        for container in rendered.containers()
        for entry in container.get("env", [])
        if entry["name"] == "MLFLOW_TRACKING_URI"
    }
    service = rendered.one("Service", "mlflow")
    assert {urlsplit(uri).hostname for uri in called} == {service["metadata"]["name"]}
    assert {urlsplit(uri).port for uri in called} == {service["spec"]["ports"][0]["port"]}
    (port,) = rendered.one("Service", "mlflow-read")["spec"]["ports"]
    assert reading == f"http://mlflow-read:{port['port']}"
    assert all(is_allowed_host_header(allowed, urlsplit(uri).netloc) for uri in {reading, *called})
    assert not is_allowed_host_header(allowed, "mlflow.example.com:5000")
    arguments = server["command"]
    assert arguments[arguments.index("--host") + 1] == "0.0.0.0"  # noqa: S104 - in its pod
    assert arguments[arguments.index("--port") + 1] == str(server["ports"][0]["containerPort"])


@pytest.mark.parametrize("name", ["pipeline", "retrain"])
def test_the_pipeline_keeps_what_it_computed(rendered, name):
    container = rendered.container(name)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["cache"] == f"{container['workingDir']}/.dvc/cache"
    assert container["workingDir"].startswith(f"{mounts['workspace']}/")


def test_retraining_is_the_pipelines_job_with_the_command_that_asks_for_a_reason(prod):
    retrain, pipeline = (dict(prod.container(name)) for name in ("retrain", "pipeline"))
    assert retrain.pop("command")[:3] == ["python", "-m", "pipeline.retrain"]
    del pipeline["command"], retrain["name"], pipeline["name"]
    retrain["volumeMounts"] = [m for m in retrain["volumeMounts"] if m["name"] != "report"]
    assert retrain == pipeline
    assert prod.one("CronJob", "retrain")["spec"]["concurrencyPolicy"] == "Forbid"
    suspended = {job["metadata"]["name"]: job["spec"].get("suspend") for job in prod.all("CronJob")}
    never = {"pipeline": True, "model-rollback": True}
    assert suspended == {"retrain": None, "backup": None, **never}


def check_drift_is_asked_first(rendered):
    """That `retrain` reads the report which its init container has written; its options."""
    container = rendered.container("retrain")
    (drift,) = (c for c in rendered.pod("retrain")["initContainers"] if c["name"] == "drift")
    (script,) = drift["command"][2:]
    assert drift["command"][:2] == ["sh", "-c"]
    asked, _, rest = script.partition(" || ")
    assert rest == f"[ $? = {DRIFT} ]"
    chosen = drift_options(asked.split()[3:])
    of_the_job = rendered.container("drift")
    assert chosen.url == drift_options(of_the_job["command"][3:]).url
    assert not chosen.every
    assert drift["env"] == of_the_job["env"]
    mounts = {m["name"]: m for m in container["volumeMounts"]}
    assert mounts["report"] == {"name": "report", "mountPath": str(chosen.out), "readOnly": True}
    assert {"name": "report", "mountPath": str(chosen.out)} in drift["volumeMounts"]
    options = retrain_options([*container["command"], *container.get("args", [])][3:])
    assert options.drift == chosen.out / "drift.json"
    return options


def test_drift_is_a_reason_to_train_again_in_prod(prod):
    assert check_drift_is_asked_first(prod).feedback == []


def test_drift_and_feedback_go_together(with_component):
    options = check_drift_is_asked_first(with_component("dev", "monitoring"))
    assert list(map(str, options.feedback)) == ["/state/feedback.db"]


@pytest.mark.parametrize(("status", "goes_on"), [(0, True), (1, False), (2, False), (3, True)])
def test_only_a_check_that_failed_stops_retraining(prod, tmp_path, status, goes_on):
    (tmp_path / "python").write_text(f"#!/bin/sh\nexit {status}\n")
    (tmp_path / "python").chmod(0o755)
    (drift,) = (c for c in prod.pod("retrain")["initContainers"] if c["name"] == "drift")
    done = subprocess.run(drift["command"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    assert (done.returncode == 0) == goes_on


def test_where_feedback_is_on_a_volume_retraining_reads_it_and_no_more():
    dev = Rendered(KUBERNETES / "overlays/dev")
    pod, container = dev.pod("retrain"), dev.container("retrain")
    mount = next(m for m in container["volumeMounts"] if m["name"] == "state")
    assert mount["readOnly"] is True
    assert container["args"] == ["--feedback", f"{mount['mountPath']}/feedback.db"]
    assert mount["mountPath"] == dev.variables()["STATE_DIR"]
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "state"]
    assert claims == [
        v["persistentVolumeClaim"] for v in dev.pod()["volumes"] if v["name"] == "state"
    ]
    (near,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert dev.labelled(near["labelSelector"]) == {"digit-platform"}


# ---- backups


def check_backup(rendered, job, of, *arguments):
    """That a job copies what is on the volume of `of` to another, which `of` can read."""
    container, pod, owner = rendered.container(job), rendered.pod(job), rendered.pod(of)
    assert container["command"] == ["sh", "/scripts/backup.sh"]
    assert container["args"] == list(arguments)
    mounts = {m["name"]: m for m in container["volumeMounts"]}
    volumes = {v["name"]: v for v in pod["volumes"]}
    script = rendered.one("ConfigMap", volumes["scripts"]["configMap"]["name"])["data"]
    assert mounts["scripts"]["mountPath"] == "/scripts"
    assert script == {"backup.sh": (BACKUP / "backup.sh").read_text()}
    (source,) = set(mounts) - {"scripts", "backups"}
    assert mounts[source]["readOnly"] is True
    assert not mounts["backups"].get("readOnly")
    with_it = [v for v in owner["volumes"] if v["name"] in (source, "backups")]
    assert with_it == [volumes[v["name"]] for v in with_it]
    (back,) = (m for m in rendered.container(of)["volumeMounts"] if m["name"] == "backups")
    assert back == mounts["backups"] | {"readOnly": True}
    (near,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rendered.labelled(near["labelSelector"]) == {of}
    spec = rendered.one("CronJob", job)["spec"]
    assert spec["schedule"] == "30 6 * * *"
    assert spec["concurrencyPolicy"] == "Forbid"


def test_the_registry_is_backed_up_as_in_compose(prod):
    _, _, *arguments = COMPOSE["services"]["backup"]["command"]
    check_backup(prod, "backup", "mlflow", *arguments[:2])
    (variable,) = prod.container("backup")["env"]
    assert variable in prod.container("mlflow")["env"]
    way = prod.policy("to-postgres")
    assert prod.labelled(way["podSelector"]) == {"mlflow", "backup"}
    assert [rule["ports"] for rule in way["egress"]] == [[{"port": 5432}]]


def test_sqlite_is_backed_up_where_the_registry_is_on_it():
    dev = Rendered(KUBERNETES / "overlays/dev")
    (uri,) = (e["value"] for e in dev.container("mlflow")["env"] if "STORE_URI" in e["name"])
    database = uri.removeprefix("sqlite:///")
    check_backup(dev, "backup", "mlflow", "/backups/registry", database, "/mlflow/artifacts")


def test_feedback_is_backed_up_where_it_is_on_a_volume(with_component):
    _, _, *arguments = COMPOSE["services"]["backup-feedback"]["command"]
    for rendered in (
        Rendered(KUBERNETES / "overlays/dev"),
        with_component("prod", "one-replica"),
    ):
        check_backup(rendered, "backup-feedback", "digit-platform", *arguments)


# ---- components


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_a_baked_model_asks_no_registry(with_component, overlay):
    rendered = with_component(overlay, "baked-model")
    variables = rendered.variables()
    assert variables["MODEL_URI"] == "/model"
    assert not variables["MLFLOW_TRACKING_URI"]
    assert not settings(variables).followed
