//! HAProxy in TCP mode and nginx's stream module: they end the client's connection and make one of their own to a
//! backend, on one thread. They own the VIP.

use std::path::{Path, PathBuf};

use shunt_tests::error::{Result, ensure};
use shunt_tests::process::Process;
use shunt_tests::servers;

use super::network::{BACKENDS, Network, TCP_PORT, VIP};
use super::{SUBJECT_CORE, pinning};

/// Where distributions keep nginx's stream module, if it is not built in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Starts HAProxy on the load balancer and waits until it listens.
pub fn start_haproxy(network: &Network) -> Result<Process> {
    let servers: String =
        BACKENDS.iter().zip(1..).map(|(own, n)| format!("  server s{n} {own}:{TCP_PORT}\n")).collect();
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen bench\n  bind {VIP}:{TCP_PORT}\n  balance roundrobin\n{servers}"
    );
    let file = network.run.write("haproxy.cfg", config)?;
    start(network, "haproxy", Path::new("/usr/sbin/haproxy"), &["-db", "-f", &file.display().to_string()])
}

/// Starts nginx with its stream module on the load balancer and waits until it listens.
pub fn start_nginx(network: &Network) -> Result<Process> {
    let module = PathBuf::from(STREAM_MODULE);
    let load = if module.exists() { format!("load_module {};\n", module.display()) } else { String::new() };
    let prefix = network.run.subdirectory("lb-nginx")?;
    let servers: String = BACKENDS.iter().map(|own| format!("    server {own}:{TCP_PORT};\n")).collect();
    let config = format!(
        "{load}daemon off;\nmaster_process off;\npid {}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 8192; }}\n\
         stream {{\n  access_log off;\n  upstream backends {{\n{servers}  }}\n\
         \x20 server {{ listen {VIP}:{TCP_PORT}; proxy_pass backends; }}\n}}\n",
        prefix.display()
    );
    let file = network.run.write("lb-nginx.conf", config)?;
    let (prefix, file) = (prefix.display().to_string(), file.display().to_string());
    start(network, "nginx", Path::new("/usr/sbin/nginx"), &["-p", &prefix, "-c", &file, "-e", "stderr"])
}

fn start(network: &Network, name: &str, program: &Path, arguments: &[&str]) -> Result<Process> {
    ensure(program.exists(), || {
        format!("{} is missing; deploy/bootstrap.sh installs it", program.display())
    })?;
    network.lb.ip(&format!("addr add {VIP}/32 dev lo\n"))?;
    let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let mut process = Process::start(&network.run, &network.lb, &format!("lb-{name}"), program, &arguments)?;
    servers::wait_listening(&mut process, &network.lb, &[(VIP, TCP_PORT).into()])?;
    pinning::pin(process.pid(), SUBJECT_CORE)?;
    Ok(process)
}
