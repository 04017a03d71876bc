//! Backends' servers: our own `shunt-echo`, Debian's nginx and iperf3. Each listens on all VIPs.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::command;
use crate::error::{Result, While, ensure};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::programs;
use crate::run::Run;
use crate::topology::{Node, Topology};
use crate::wait;

/// Bytes a second at which nginx sends what is asked for below `/slow/`.
pub const SLOW_RATE: u64 = 30_000;

/// Between the start of a server and its first answer, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Starts `shunt-echo` on a node, on all VIPs and these ports.
pub fn start_echo(topology: &Topology, node: &Node, ports: &[u16]) -> Result<Process> {
    let vips = &topology.shape.vips;
    start_echo_at(&topology.run, &node.namespace, &node.name, &listeners(vips, ports))
}

/// Starts `shunt-echo` in any namespace.
pub fn start_echo_at(run: &Run, namespace: &Namespace, name: &str, at: &[SocketAddr]) -> Result<Process> {
    let program = programs::path("shunt-echo")?;
    let mut arguments = vec![format!("--name={name}")];
    arguments.extend(at.iter().map(|address| format!("--listen={address}")));
    let mut server = Process::start(run, namespace, &format!("{name}-echo"), &program, &arguments)?;
    wait_listening(&mut server, namespace, at)?;
    Ok(server)
}

/// Starts nginx on a node, on all VIPs at port 80; see [`start_nginx_at`].
pub fn start_nginx(topology: &Topology, node: &Node) -> Result<Process> {
    start_nginx_at(&topology.run, node, &listeners(&topology.shape.vips, &[80]))
}

/// Starts nginx on a node: `/` answers with the node's name, anything else is a file of the run's `www`
/// directory, below `/slow/` sent at [`SLOW_RATE`], and what is put below `/uploads/` is stored there. Every answer's
/// `x-backend` names the node and `x-client` the address and port it saw.
pub fn start_nginx_at(run: &Run, node: &Node, at: &[SocketAddr]) -> Result<Process> {
    let prefix = run.subdirectory(&format!("{}-nginx", node.name))?;
    let listen: String = at.iter().map(|address| format!("    listen {address};\n")).collect();
    let www = run.subdirectory("www")?;
    let config = nginx_config(&prefix, &listen, &node.name, &www);
    let file = run.write(&format!("{}-nginx.conf", node.name), config)?;
    let arguments = ["-p", &prefix.display().to_string(), "-c", &file.display().to_string(), "-e", "stderr"];
    let mut server = start(run, node, "nginx", &arguments)?;
    wait_listening(&mut server, &node.namespace, at)?;
    Ok(server)
}

/// Starts iperf3's server on a node, on one VIP, for one test: between two it would refuse connections.
pub fn start_iperf3(topology: &Topology, node: &Node, vip: IpAddr) -> Result<Process> {
    let mut server = start(&topology.run, node, "iperf3", &["-s", "-1", "-B", &vip.to_string()])?;
    wait_listening(&mut server, &node.namespace, &[(vip, 5201).into()])?;
    Ok(server)
}

fn start(run: &Run, node: &Node, program: &str, arguments: &[&str]) -> Result<Process> {
    let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Process::start(run, &node.namespace, &format!("{}-{program}", node.name), Path::new(program), &arguments)
}

/// One process without a master: what is started is what is killed.
fn nginx_config(prefix: &Path, listen: &str, name: &str, www: &Path) -> String {
    let prefix = prefix.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {prefix}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {prefix}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  default_type text/plain;\n{temporary}  server {{\n{listen}\
         \x20   add_header x-backend {name} always;\n\
         \x20   add_header x-client \"$remote_addr $remote_port\" always;\n\
         \x20   location = / {{ return 200 \"{name}\\n\"; }}\n\
         \x20   location /uploads/ {{ root {www}; dav_methods PUT; create_full_put_path on;\n\
         \x20     client_max_body_size 0; }}\n\
         \x20   location /slow/ {{ alias {www}/; limit_rate {SLOW_RATE}; }}\n\
         \x20   location / {{ root {www}; }}\n  }}\n}}\n",
        www = www.display()
    )
}

fn listeners(vips: &[IpAddr], ports: &[u16]) -> Vec<SocketAddr> {
    vips.iter().flat_map(|vip| ports.iter().map(|port| SocketAddr::new(*vip, *port))).collect()
}

/// Waits until the server accepts on every address; its own log explains if it ended instead.
pub fn wait_listening(server: &mut Process, namespace: &Namespace, wanted: &[SocketAddr]) -> Result<()> {
    let name = namespace.name();
    wait::until(&format!("the server in {name} to listen"), START_LIMIT, || {
        ensure(server.is_running(), || format!("the server in {name} ended:\n{}", server.log()))?;
        let listening = command::run(namespace.command("ss").arg("-Hltn"))?;
        let all = wanted.iter().all(|address| listening.contains(&format!(" {address} ")));
        Ok(all.then_some(()))
    })?;
    Ok(())
}

/// Writes a file that every nginx serves: `bytes` of the pattern of [`crate::echo::pattern`].
pub fn publish(run: &Run, name: &str, bytes: u64) -> Result<Vec<u8>> {
    let content: Vec<u8> = (0..bytes).map(crate::echo::pattern).collect();
    let path = run.subdirectory("www")?.join(name);
    std::fs::write(&path, &content).to(|| format!("write {}", path.display()))?;
    Ok(content)
}
