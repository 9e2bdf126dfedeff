"""What no schema says about the manifests: python manifests.py FILE. Prints what is wrong, a line each; nothing if all is well."""
import sys, yaml

objects = [one for one in yaml.safe_load_all(open(sys.argv[1])) if one]
wrong = []


def of(kind):
    return [one for one in objects if one["kind"] == kind]


def check(fine, what):
    if not fine:
        wrong.append(what)


def selects(selector, labels):
    return selector and all(labels.get(name) == value for name, value in selector.items())


config = {name: value for one in of("ConfigMap") for name, value in one["data"].items()}
workloads = of("StatefulSet") + of("Deployment")
check(len(workloads) == 2, "there are owners and edges")
headless = [one["metadata"]["name"] for one in of("Service") if one["spec"].get("clusterIP") == "None"]
check(config["TIDINGS_CLUSTER__JOIN"] in [f"{name}:7401" for name in headless], "nodes look for the headless service")
for one in workloads:
    name, template = one["metadata"]["name"], one["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    container = pod["containers"][0]
    check(selects(one["spec"]["selector"]["matchLabels"], labels), f"{name} selects its own pods")
    others = [other["spec"]["selector"]["matchLabels"] for other in workloads if other is not one]
    check(not any(selects(other, labels) for other in others), f"{name}: nobody else selects its pods")
    budgets = [budget for budget in of("PodDisruptionBudget") if selects(budget["spec"]["selector"]["matchLabels"], labels)]
    check(len(budgets) == 1, f"{name} has one disruption budget")
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needs = before + (int(config["TIDINGS_DRAIN__LEAVE_MS"]) + int(config["TIDINGS_DRAIN__DEADLINE_MS"])) / 1000 + 5
    check(pod["terminationGracePeriodSeconds"] >= needs, f"{name}: its grace period is below {needs} s")
    probe = container["readinessProbe"]
    out = probe["periodSeconds"] * probe["failureThreshold"]
    check(before >= out, f"{name}: it stops before anybody has seen that it is not ready")
    check(container["livenessProbe"]["httpGet"]["path"] == "/healthz" and probe["httpGet"]["path"] == "/readyz", f"{name}: probes")
    ports = {port["name"] for port in container["ports"]}
    for service in of("Service"):
        if selects(service["spec"]["selector"], labels):
            check(all(port["targetPort"] in ports for port in service["spec"]["ports"]), f"{name}: ports of {service['metadata']['name']}")
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    offered = {volume["name"] for volume in pod["volumes"]} | {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
    check(mounted == offered, f"{name}: {mounted} are mounted of {offered}")
    env = {entry["name"]: entry.get("value") for entry in container["env"]} | config
    check(bool(env.get("TIDINGS_AUTH__POLICY_FILE")) != (env.get("TIDINGS_SERVER__INSECURE") == "true"), f"{name}: a policy, or none")
    check(("policy" in mounted) == bool(env["TIDINGS_AUTH__POLICY_FILE"]), f"{name}: its policy is mounted")
    check((env["TIDINGS_SERVER__DATA_DIR"] == "/data") == ("data" in mounted) == ("owner" in env["TIDINGS_SERVER__ROLES"]), f"{name}: owners have disks")
    safe = container["securityContext"]
    check(safe["readOnlyRootFilesystem"] and not safe["allowPrivilegeEscalation"] and safe["capabilities"] == {"drop": ["ALL"]} and pod["securityContext"]["runAsNonRoot"], f"{name}: it may do more than it must")
    check(config["TIDINGS_SERVER__LISTEN"].endswith(":7400") and int(config["TIDINGS_DRAIN__SPREAD_MS"]) <= int(config["TIDINGS_DRAIN__DEADLINE_MS"]), f"{name}: settings")
    check(any(selects(policy["spec"]["podSelector"].get("matchLabels"), labels) for policy in of("NetworkPolicy")), f"{name} has a network policy")
peers = [peer for policy in of("NetworkPolicy") for rule in policy["spec"].get("egress", []) for peer in rule["to"]]
check({"k8s-app": "kube-dns"} in [peer["podSelector"]["matchLabels"] for peer in peers], "nodes may ask for names")
peers = [peer for policy in of("NetworkPolicy") for rule in policy["spec"]["ingress"] for peer in rule.get("from", [])]
check({"app.kubernetes.io/name": "prometheus"} in [peer["podSelector"]["matchLabels"] for peer in peers], "Prometheus may ask")
for one in of("HorizontalPodAutoscaler"):
    target = [work for work in workloads if work["metadata"]["name"] == one["spec"]["scaleTargetRef"]["name"]]
    check(len(target) == 1 and "replicas" not in target[0]["spec"], "the autoscaler alone says how many edges there are")
for one in of("ServiceMonitor"):
    wanted = one["spec"]["selector"]["matchLabels"]
    found = [service for service in of("Service") if selects(wanted, service["metadata"]["labels"])]
    check(len(found) == 1, f"{len(found)} services are watched")
    names = {port["name"] for service in found for port in service["spec"]["ports"]}
    check(all(endpoint["port"] in names for endpoint in one["spec"]["endpoints"]), "a port is watched that is not there")
    check(set(one) == {"apiVersion", "kind", "metadata", "spec"} and set(one["spec"]) <= {"selector", "endpoints"} and all(set(endpoint) <= {"port", "path", "interval", "authorization"} for endpoint in one["spec"]["endpoints"]), "a ServiceMonitor has no such field")
print("\n".join(wrong), end="")
