#!/bin/bash
# Builds what the cluster runs, unless it is in the cache: `kube` (etcd and all of Kubernetes, by the name that it is
# called by), agnhost and pause for the images, the reference provider, CoreDNS, and upstream's e2e.test. All of it is
# static, so that it runs in any image.
set -euo pipefail
. "$(dirname "$0")/env.sh"
kubernetes_version=v1.36.3 # as in go/go.mod
agnhost_version=2.63.0

need_go
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
strip="-s -w"
version="-X k8s.io/component-base/version.gitVersion=$kubernetes_version"
version+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"

# step PROGRAM MODULE COMMAND...: under another name until it is whole
step() {
    local program=$1 module=$2 began=$SECONDS
    shift 2
    if [ -x "$bin/$program" ]; then return; fi
    nice -n 5 go -C "$here/$module" "${@/#OUT/$bin/$program.new}"
    mv "$bin/$program.new" "$bin/$program"
    say "built $program in $((SECONDS - began)) s"
}

mkdir -p "$bin"
exec 9>"$bin/lock"
flock 9 # another cluster may be building the same
if [ ! -x "$bin/e2e.test" ]; then say "building Kubernetes, once, about nine minutes on two cores"; fi
step kube go build -ldflags "$strip $version" -o OUT ./kube
for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
    ln -sfn kube "$bin/$name"
done
step agnhost go build -ldflags "$strip -X main.Version=$agnhost_version" -o OUT k8s.io/kubernetes/test/images/agnhost
step pause go build -ldflags "$strip" -o OUT ./pause
step baseline go build -ldflags "$strip" -o OUT ./baseline
step coredns go-dns build -ldflags "$strip" -o OUT .
step e2e.test go test -c -ldflags "$strip $version" -o OUT k8s.io/kubernetes/test/e2e
"$here/images.sh"
# Of other versions: not used for a month. What is used is marked here.
touch "$bin"
find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf {} +
