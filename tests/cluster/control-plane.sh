#!/bin/bash
# Starts etcd, the API server, the controllers, the scheduler and the cluster's DNS in $P-cp.
set -euo pipefail
. "$(dirname "$0")/env.sh"
directory=$RUN/cp
mkdir -p "$directory/log"
cd "$directory"

start() { # start NAME COMMAND...
    local name=$1
    shift
    setsid nsenter --net="/run/netns/$P-cp" -- "$@" >"log/$name.log" 2>&1 </dev/null &
    record "cp-$name" $!
}

write_kubeconfig() { # write_kubeconfig NAME SERVER
    cat >"$RUN/kubeconfig.$1" <<KUBECONFIG
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "$2", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: $token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
KUBECONFIG
}

# Whatever Shunt writes, and from which box.
write_audit_policy() {
    cat >audit.yaml <<POLICY
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:shunt-system:shunt"]
  verbs: [create, update, patch, delete]
- level: None
POLICY
}

umask 077
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
token=$(openssl rand -hex 16)
echo "$token,admin,1,\"system:masters\"" >tokens.csv
write_kubeconfig mgmt "$api_mgmt"
write_kubeconfig node "$api_node"
write_audit_policy

start etcd "$bin/etcd" "$directory/etcd.data"
until_true 60 "etcd is ready (see $directory/log/etcd.log)" grep -q 'etcd ready' log/etcd.log
start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
    --service-cluster-ip-range="$service_cidrs" --cert-dir=certs --secure-port=6443 \
    --authorization-mode=RBAC --token-auth-file=tokens.csv --allow-privileged=true \
    --audit-policy-file=audit.yaml --audit-log-path=log/audit.log \
    --advertise-address="$(first "$(by_family "$N4.5" "${N6}:5")")" \
    --kubelet-preferred-address-types=InternalIP --event-ttl=30m
until_true 120 "the API server is ready (see $directory/log/apiserver.log)" \
    inside cp curl -skf -m 2 -H "Authorization: Bearer $token" "$api_mgmt/readyz"
start controllers "$bin/kube-controller-manager" --kubeconfig="$RUN/kubeconfig.node" --leader-elect=false \
    --cert-dir=certs-controllers --service-account-private-key-file=sa.key --root-ca-file=certs/apiserver.crt \
    --use-service-account-credentials=false --service-cluster-ip-range="$service_cidrs" --allocate-node-cidrs=false
start scheduler "$bin/kube-scheduler" --kubeconfig="$RUN/kubeconfig.node" --leader-elect=false \
    --cert-dir=certs-scheduler
cat >Corefile <<COREFILE
.:53 {
    bind $N4.5 ${N6}:5
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $RUN/kubeconfig.node x
    }
}
COREFILE
start coredns "$bin/coredns" -conf Corefile
