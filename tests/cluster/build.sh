#!/bin/bash
# build.sh [e2e.test]: builds what the cluster runs, unless it is in the cache: `kube` (etcd and all of Kubernetes, by the
# name that it is called by), agnhost and pause for the images, the reference provider and CoreDNS; or upstream's specs,
# which up.sh does not wait for. All of it is static, so that it runs in any image.
set -euo pipefail
. "$(dirname "$0")/env.sh"
kubernetes_version=v1.36.3 # as in go/go.mod
agnhost_version=2.63.0

export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
strip="-s -w"
version="-X k8s.io/component-base/version.gitVersion=$kubernetes_version"
version+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"

# step PROGRAM MODULE ARGUMENT...: what go is told to do in a module; under another name until it is whole
step() {
    local program=$1 module=$2 began=$SECONDS
    shift 2
    if [ -x "$bin/$program" ]; then return; fi
    say "building $program, once"
    nice -n 5 go -C "$here/$module" "${@/#OUT/$bin/$program.new}" 2>"$bin/$program.log" ||
        { cat "$bin/$program.log" >&2; fail "$program could not be built"; }
    mv "$bin/$program.new" "$bin/$program"
    say "built $program in $((SECONDS - began)) s"
}

build_cluster() {
    local name
    step kube go build -ldflags "$strip $version" -o OUT ./kube
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
        ln -sfn kube "$bin/$name"
    done
    step agnhost go build -ldflags "$strip -X main.Version=$agnhost_version" -o OUT \
        k8s.io/kubernetes/test/images/agnhost
    step pause go build -ldflags "$strip" -o OUT ./pause
    step images go build -ldflags "$strip" -o OUT ./images
    step baseline go build -ldflags "$strip" -o OUT ./baseline
    step coredns go-dns build -ldflags "$strip" -o OUT .
    "$here/images.sh"
}

need_go
mkdir -p "$bin"
exec 9>"$bin/lock${1:+.$1}"
flock 9 # another cluster may be building the same
case ${1:-} in
    "") build_cluster ;;
    e2e.test) step e2e.test go test -c -ldflags "$strip $version" -o OUT k8s.io/kubernetes/test/e2e ;;
    *) fail "$1: give nothing, or e2e.test" ;;
esac
# Of other versions: not used for a month. What is used is marked here.
touch "$bin"
find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf {} +
