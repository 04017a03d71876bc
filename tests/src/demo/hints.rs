//! What to try with a demo that was left running.

use std::net::{IpAddr, SocketAddr};

use super::PORT;
use crate::error::Result;
use crate::programs;
use crate::shunt::Paths;

/// Commands to type, each complete.
pub fn text(run: &str, vips: &[IpAddr], paths: &Paths) -> Result<String> {
    let lbctl = programs::path("lbctl")?;
    let (lbctl, demo) = (lbctl.display(), programs::path("shunt-demo")?);
    let (socket, dataplane) = (paths.socket.display(), paths.dataplane_socket.display());
    let curls: String = vips
        .iter()
        .map(|vip| {
            format!(
                "  nsenter --net=/run/netns/{run}-client curl -sg 'http://{}/'\n",
                SocketAddr::new(*vip, PORT)
            )
        })
        .collect();
    Ok(format!(
        "\nIt is still running. Look at it:\n\
         \x20 export SHUNT_CONTROLPLANE_SOCKET={socket} SHUNT_DATAPLANE_SOCKET={dataplane}\n\
         \x20 {lbctl} status\n\
         \x20 {lbctl} get backends\n\
         \x20 {lbctl} stats --watch\n\
         \x20 {lbctl} flows --limit 10\n\
         Be a client:\n{curls}\
         Change something:\n\
         \x20 $EDITOR {} && {lbctl} reload\n\
         Remove it all:\n\
         \x20 {} --clean {run}\n",
        paths.config.display(),
        demo.display(),
    ))
}
