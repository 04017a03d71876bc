//! `lbctl kubeconfig`: the kubeconfig by which the control plane reaches a cluster, with a token of its ServiceAccount.
//! An administrator's kubeconfig, of whichever kind, asks for the token and is not part of what comes out.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::config::{Cluster, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::Serialize;
use serde_json::{Value, json};
use shunt_api::file::replace;

use crate::Outcome;
use crate::output::{self, Format};

/// The API server refuses less.
const DURATION_MIN: Duration = Duration::from_secs(600);
/// Less than what was asked for by more than this is worth a word.
const TOLERATED: Duration = Duration::from_secs(60);
/// What cluster, user and context are called in the result.
const NAME: &str = "shunt";

/// What to make.
#[derive(Args)]
pub struct Options {
    /// An administrator's kubeconfig [default: as kubectl finds it, by KUBECONFIG or in ~/.kube/config].
    #[arg(long, value_name = "PATH")]
    admin_kubeconfig: Option<PathBuf>,
    /// The context in it [default: its current one].
    #[arg(long)]
    context: Option<String>,
    /// Where the ServiceAccount is.
    #[arg(long, default_value = "shunt-system")]
    namespace: String,
    /// Whom the token is for.
    #[arg(long, value_name = "NAME", default_value = "shunt")]
    service_account: String,
    /// How long the token is to last; the API server may grant less.
    #[arg(long, default_value = "365d", value_parser = duration)]
    duration: Duration,
    /// The API server as this box reaches it [default: as the administrator does].
    #[arg(long, value_name = "URL", value_parser = server)]
    server: Option<String>,
    /// Write to this file, which only its owner may read, instead of to standard output.
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
}

/// What was made.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Made {
    file: Option<PathBuf>,
    server: String,
    service_account: String,
    /// RFC 3339.
    expires: String,
    granted_s: u64,
    asked_s: u64,
}

/// Makes a kubeconfig.
pub async fn run(options: &Options, format: Format) -> anyhow::Result<Outcome> {
    let admin = admin(options)?;
    let cluster = cluster(&admin, options)?;
    let (token, expires) = token(admin, options).await?;
    let made = made(options, &cluster, expires);
    let kubeconfig = kubeconfig(&cluster, &options.namespace, &token);
    let text = match format {
        // JSON is YAML, too.
        Format::Json => format!("{kubeconfig:#}\n"),
        Format::Table => serde_saphyr::to_string(&kubeconfig)?,
    };
    match (&options.file, format) {
        (None, _) => {
            output::print(&text)?;
            eprint!("{}", said(&made));
        }
        (Some(file), format) => {
            replace(file, text.as_bytes())
                .with_context(|| format!("{} cannot be written", file.display()))?;
            match format {
                Format::Json => output::print_json(&made)?,
                Format::Table => output::print(&said(&made))?,
            }
        }
    }
    Ok(Outcome::Well)
}

fn admin(options: &Options) -> anyhow::Result<Kubeconfig> {
    let advice = "name an administrator's by --admin-kubeconfig, such as /etc/kubernetes/admin.conf of a kubeadm cluster";
    let read = match &options.admin_kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let mut read = read.map_err(|error| anyhow!("no kubeconfig to ask with: {}; {advice}", chain(&error)))?;
    let Some(context) = options.context.clone().or(read.current_context.take()) else {
        bail!("the kubeconfig has no current context; name one by --context: {}", names(&read));
    };
    if !read.contexts.iter().any(|known| known.name == context) {
        bail!("the kubeconfig has no context `{context}`; name one by --context: {}", names(&read));
    }
    read.current_context = Some(context);
    Ok(read)
}

fn names(kubeconfig: &Kubeconfig) -> String {
    let names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    if names.is_empty() { "it has none".into() } else { names.join(", ") }
}

/// Where the API server is and how to know it, as a kubeconfig says it.
fn cluster(admin: &Kubeconfig, options: &Options) -> anyhow::Result<Value> {
    let context = admin.contexts.iter().find(|context| Some(&context.name) == admin.current_context.as_ref());
    let name = context.and_then(|context| context.context.as_ref()).map(|context| context.cluster.as_str());
    let found = admin.clusters.iter().find(|cluster| Some(cluster.name.as_str()) == name);
    let Some(found) = found.and_then(|named| named.cluster.as_ref()) else {
        bail!("the context names a cluster that the kubeconfig does not have; name another by --context");
    };
    let Some(server) = options.server.clone().or(found.server.clone()) else {
        bail!("the kubeconfig names no server; give its address by --server");
    };
    let mut cluster = json!({ "server": server });
    if let Some(authority) = authority(found)? {
        cluster["certificate-authority-data"] = authority;
    }
    if let Some(name) = &found.tls_server_name {
        cluster["tls-server-name"] = json!(name);
    }
    if found.insecure_skip_tls_verify == Some(true) {
        cluster["insecure-skip-tls-verify"] = json!(true);
    }
    Ok(cluster)
}

/// The certificates themselves, even if the administrator's kubeconfig names a file.
fn authority(cluster: &Cluster) -> anyhow::Result<Option<Value>> {
    if let Some(data) = &cluster.certificate_authority_data {
        return Ok(Some(json!(data)));
    }
    let Some(path) = &cluster.certificate_authority else { return Ok(None) };
    let read = fs::read(path).with_context(|| format!("certificate-authority {path} cannot be read"))?;
    Ok(Some(serde_json::to_value(ByteString(read))?))
}

/// A token, and when it expires.
async fn token(admin: Kubeconfig, options: &Options) -> anyhow::Result<(String, Timestamp)> {
    let config = Config::from_custom_kubeconfig(admin, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| anyhow!("the kubeconfig cannot be used: {}", chain(&error)))?;
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config)
        .map_err(|error| anyhow!("the kubeconfig cannot be used: {}", chain(&error)))?;
    let wanted = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: i64::try_from(options.duration.as_secs()).ok(),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(client, &options.namespace);
    let asked = api.create_token_request(&options.service_account, &PostParams::default(), &wanted).await;
    let answer = asked.map_err(|error| refused(&error, &server, options))?.status.unwrap_or_default();
    match (answer.token, answer.expiration_timestamp) {
        (Some(token), Some(expires)) => Ok((token, expires.0)),
        _ => bail!("{server} answered without a token; is it an API server of Kubernetes 1.24 or newer?"),
    }
}

/// What to do about an answer that is no token.
fn refused(error: &kube::Error, server: &str, options: &Options) -> anyhow::Error {
    let Options { namespace, service_account, .. } = options;
    let kube::Error::Api(status) = error else {
        return anyhow!("{server} cannot be asked: {}; is it reachable from here?", chain(error));
    };
    let message = &status.message;
    match status.code {
        401 => {
            anyhow!("{server} does not know whom the kubeconfig is of: {message}; has what it holds expired?")
        }
        403 => anyhow!(
            "{message}; use a kubeconfig of somebody who may `create` serviceaccounts/token in namespace {namespace}"
        ),
        404 => anyhow!(
            "there is no ServiceAccount {namespace}/{service_account}; make it by `kubectl apply -k deploy/kubernetes` \
             or by the Helm chart, or name another by --namespace and --service-account"
        ),
        _ => anyhow!("{server} gives no token: {message}"),
    }
}

fn made(options: &Options, cluster: &Value, expires: Timestamp) -> Made {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Made {
        file: options.file.clone(),
        server: cluster["server"].as_str().unwrap_or_default().to_owned(),
        service_account: format!("{}/{}", options.namespace, options.service_account),
        expires: expires.to_string(),
        granted_s: u64::try_from(expires.as_second()).unwrap_or(0).saturating_sub(now),
        asked_s: options.duration.as_secs(),
    }
}

fn said(made: &Made) -> String {
    let Made { file, server, service_account, expires, granted_s, asked_s } = made;
    let what = file.as_ref().map_or_else(|| "kubeconfig".into(), |file| file.display().to_string());
    let granted = lasting(*granted_s);
    let mut text = format!("{what}: {service_account} at {server}, until {expires} ({granted})\n");
    if granted_s + TOLERATED.as_secs() < *asked_s {
        text += &format!(
            "the API server granted less than the {} that were asked for (its \
             --service-account-max-token-expiration)\n",
            lasting(*asked_s)
        );
    }
    text + "make another one before then; the control plane takes it from the file without a restart\n"
}

/// In whole minutes, since the answer took a while; in days rather than months, as it was asked for.
fn lasting(seconds: u64) -> String {
    let minutes = seconds.div_ceil(60);
    match minutes {
        0..1440 => output::duration(minutes * 60),
        _ => output::count(usize::try_from(minutes / 1440).unwrap_or(usize::MAX), "day"),
    }
}

fn kubeconfig(cluster: &Value, namespace: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": NAME, "cluster": cluster }],
        "users": [{ "name": NAME, "user": { "token": token } }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME, "namespace": namespace } }],
        "current-context": NAME,
    })
}

/// With all causes: the outermost words of a client's error say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text += &format!(": {words}");
        }
        next = cause.source();
    }
    text
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write such as 365d"))?;
    if duration < DURATION_MIN {
        return Err("the API server makes no tokens that last less than 10m".into());
    }
    Ok(duration)
}

fn server(text: &str) -> Result<String, String> {
    if ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(text.into());
    }
    Err(format!("write a URL, such as https://{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_a_kubeconfig_of_its_own() {
        let cluster = json!({ "server": "https://192.0.2.1:6443", "certificate-authority-data": "QQ==" });
        let text = serde_saphyr::to_string(&kubeconfig(&cluster, "shunt-system", "a.b-c_d")).unwrap();
        let read = Kubeconfig::from_yaml(&text).unwrap();
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://192.0.2.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("QQ=="));
        assert_eq!(read.current_context.as_deref(), Some(NAME));
        let context = read.contexts[0].context.as_ref().unwrap();
        assert_eq!((context.cluster.as_str(), context.user.as_deref()), (NAME, Some(NAME)));
        assert_eq!(context.namespace.as_deref(), Some("shunt-system"));
        let plain: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(plain["users"][0]["user"], json!({ "token": "a.b-c_d" }), "no other way in");
    }

    #[test]
    fn less_than_asked_for_is_told() {
        let made = |granted_s| Made {
            file: Some("/etc/shunt/kubeconfig".into()),
            server: "https://192.0.2.1:6443".into(),
            service_account: "shunt-system/shunt".into(),
            expires: "2027-01-31T12:00:00Z".into(),
            granted_s,
            asked_s: 86_400,
        };
        let first =
            "/etc/shunt/kubeconfig: shunt-system/shunt at https://192.0.2.1:6443, until 2027-01-31T12:00:00Z";
        let last =
            "make another one before then; the control plane takes it from the file without a restart\n";
        assert_eq!(said(&made(86_399)), format!("{first} (1 day)\n{last}"));
        let less = "the API server granted less than the 1 day that were asked for (its \
            --service-account-max-token-expiration)\n";
        assert_eq!(said(&made(3_599)), format!("{first} (1h)\n{less}{last}"));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert!(
            duration("9m").unwrap_err().contains("10m") && duration("soon").unwrap_err().contains("365d")
        );
        assert_eq!(server("https://a:6443").as_deref(), Ok("https://a:6443"));
        assert_eq!(server("a:6443").unwrap_err(), "write a URL, such as https://a:6443");
    }
}
