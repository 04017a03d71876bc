#!/bin/bash
# try-dr.sh: shows that a client's packet reaches a pod through VIP -> Shunt (AF_XDP on veth, mode dr) -> node -> kube-proxy
# -> pod, and its answer the client past Shunt. Shunt is configured by a file here, and the Service's status is written by
# hand: what a provider would do. Pods run on n1 and n2 only, so that with externalTrafficPolicy Local no other node may get
# packets, and with Cluster all may.
set -euo pipefail
. "$(dirname "$0")/env.sh"
is_up
[ "$RETURN" = direct ] || fail "mode dr needs RETURN=direct"
requests=60
# Away from the first ones, which a provider in the same cluster would give out.
IFS=, read -ra all_vips <<<"$(by_family 198.51.100.200 2001:db8:1::200)"
IFS=, read -ra all_clients <<<"$(by_family $C4.2 ${C6}:2)"
work=$RUN/try-dr
mkdir -p "$work"
wrong=0

check() { # check WHAT WANTED FOUND
    if [ "$2" = "$3" ]; then echo "  ok: $1: $3"; else echo "  WRONG: $1: $3, not $2"; wrong=1; fi
}

apply_objects() {
    local image i
    image=$(cat "$images/agnhost.name")
    kubectl create namespace try-dr --dry-run=client -o yaml | kubectl apply -f - >/dev/null
    for i in 1 2; do
        kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: web$i, namespace: try-dr, labels: {app: web}}
spec:
  nodeName: n$i
  terminationGracePeriodSeconds: 0
  containers:
  - {name: web, image: "$image", args: [netexec, --http-port=8080], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
YAML
    done
    # A class that no provider here serves.
    kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: web, namespace: try-dr}
spec:
  type: LoadBalancer
  loadBalancerClass: shunt.dev/by-hand
  externalTrafficPolicy: Local
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
YAML
    kubectl wait -n try-dr --for=condition=Ready --timeout=60s pod --all >/dev/null
}

write_status() {
    local ingress
    ingress=$(printf '{"ip": "%s", "ipMode": "VIP"},' "${all_vips[@]}")
    kubectl patch service web -n try-dr --subresource=status \
        -p "{\"status\": {\"loadBalancer\": {\"ingress\": [${ingress%,}]}}}" >/dev/null
}

# serve PORT: all nodes are backends; who is up is told by what kube-proxy answers at PORT
serve() {
    local i
    {
        printf '[[nic]]\nname = "cli0"\n\n[[nic]]\nname = "nod0"\n\n'
        printf '[pools.web]\nmode = "dr"\n'
        printf 'check = { type = "http", via = "direct", port = %s, path = "/healthz", status = "200", interval = "500ms" }\n' "$1"
        printf 'backends = [\n'
        for i in $(seq "$NODES"); do
            printf '  { name = "n%s", address = "%s" },\n' "$i" "$(first "$(by_family "$N4.1$i" "${N6}:1$i")")"
        done
        printf ']\n\n[[service]]\nname = "web"\nvip = ["%s"]\nports = "tcp/80"\npool = "web"\n' "$(join '", "' "${all_vips[@]}")"
    } >"$work/shunt.toml"
    "$here/shunt.sh" "$work/shunt.toml"
}

join() { # join BETWEEN EACH...
    local text=$2
    if [ $# -gt 2 ]; then text+=$(printf "$1%s" "${@:3}"); fi
    echo "$text"
}
host_of() { case $1 in *:*) echo "[$1]" ;; *) echo "$1" ;; esac; }
answers() { inside client curl -sf -m 5 "http://$(host_of "$1")/hostname"; }
up_are() { [ "$("$here/lbctl.sh" get backends | grep -c ' reachable ')" = "$1" ]; }
silent() { ! answers "$1"; }
sent() {
    "$here/lbctl.sh" stats -o json |
        python3 -c 'import json, sys; print(sum(w["counters"]["tx_packets"] for w in json.load(sys.stdin)["workers"]))'
}

# ask VIP: one line for each request: the pod that answered, and the address it saw
ask() {
    local host
    host=$(host_of "$1")
    for _ in $(seq $requests); do
        # One connection for both, so that they come from the same pod.
        inside client curl -s -m 5 -w '\n' "http://$host/hostname" "http://$host/clientip" |
            sed -E 's/\]?:[0-9]+$//; s/^\[//' | paste -sd ' '
    done
}

echo "try-dr: objects"
apply_objects
write_status
health_port=$(kubectl get service web -n try-dr -o 'jsonpath={.spec.healthCheckNodePort}')
for policy in Local Cluster; do
    port=$health_port eligible=2
    if [ $policy = Cluster ]; then port=10256 eligible=$NODES; fi
    kubectl patch service web -n try-dr -p "{\"spec\": {\"externalTrafficPolicy\": \"$policy\"}}" >/dev/null
    serve "$port"
    until_true 20 "$eligible nodes of $NODES are up" up_are "$eligible"
    for i in "${!all_vips[@]}"; do
        vip=${all_vips[i]}
        echo "try-dr: externalTrafficPolicy $policy, VIP $vip, checks at port $port"
        until_true 20 "$vip answers" answers "$vip"
        "$here/lbctl.sh" get backends
        ask "$vip" >"$work/answers"
        sort "$work/answers" | uniq -c
        check "requests answered" $requests "$(grep -c '^web' "$work/answers")"
        check "pods that answered" "web1 web2" "$(cut -d ' ' -f 1 "$work/answers" | sort -u | paste -sd ' ')"
        if [ $policy = Local ]; then
            check "address that pods saw" "${all_clients[i]}" "$(cut -d ' ' -f 2 "$work/answers" | sort -u | paste -sd ' ')"
        fi
    done
done
check "whether packets left by AF_XDP" yes "$([ "$(sent)" -gt $((requests * 5)) ] && echo yes || echo no)"
"$here/shunt.sh" stop
until_true 10 "the VIP is silent without Shunt" silent "${all_vips[0]}"
kubectl delete namespace try-dr >/dev/null
[ $wrong = 0 ] || fail "something was wrong; see above"
echo "try-dr: passed"
