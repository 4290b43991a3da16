//! Where commands that know kubectl's objects get them: from the running program, or from manifests with `-f`. Owns
//! the options that all of them share and the requests; must not print.

use std::{io::BufRead, path::PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    admin::client,
    app,
    control::status::Status,
    objects::Resource,
    settings::{ClusterOptions, InstanceOptions, ManifestOptions},
};

/// Which objects are meant.
#[derive(Debug, Clone, Args)]
pub struct ScopeOptions {
    /// Namespace to look in
    #[arg(
        short,
        long,
        env = "PORTICO_NAMESPACE",
        default_value = "default",
        value_name = "NS"
    )]
    pub namespace: String,
    /// Look at files or folders of manifests instead of the running program; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub filename: Vec<PathBuf>,
}

/// Objects of the running program, or of manifests.
#[derive(Debug)]
pub enum Cluster {
    /// Asked for one by one.
    Live(InstanceOptions),
    /// Compiled once.
    Offline(Box<app::Offline>),
}

/// One line of a watch, as the Kubernetes API has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// `ADDED`, `MODIFIED`, `DELETED`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object as it is now, or was last.
    pub object: Value,
}

/// What the running program says, with addresses that this process can use: inside `portico run` they are others.
///
/// # Errors
/// No program runs under this instance name.
pub fn status(instance: &InstanceOptions) -> anyhow::Result<Status> {
    let status: Status = serde_json::from_slice(&client::get(instance, "/v1/status")?)?;
    let inside = std::env::var_os("PORTICO_RUN");
    let is_inside = inside.is_some_and(|name| name == instance.instance.as_str());
    Ok(if is_inside { status.inside() } else { status })
}

impl Cluster {
    /// The running program of `instance`, or the manifests that `scope` names.
    ///
    /// # Errors
    /// A path that cannot be read.
    pub fn new(scope: &ScopeOptions, instance: &InstanceOptions) -> anyhow::Result<Self> {
        if scope.filename.is_empty() {
            return Ok(Self::Live(instance.clone()));
        }
        let manifests = ManifestOptions {
            namespace: scope.namespace.clone(),
            strict: false,
        };
        let offline = app::Offline::read(
            &scope.filename,
            &manifests,
            &ClusterOptions::default(),
            instance,
        )?;
        Ok(Self::Offline(Box::new(offline)))
    }

    /// All objects of `resource`, sorted by namespace and name; of one namespace, or of all.
    ///
    /// # Errors
    /// No program runs under this instance name, or it does not answer.
    pub fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let mut objects: Vec<Value> = match self {
            Self::Live(instance) => {
                let path = format!("/v1/objects/{}", resource.plural());
                serde_json::from_slice(&client::get(instance, &path)?)?
            }
            Self::Offline(offline) => offline.objects(resource),
        };
        objects.retain(|object| is_in(object, resource, namespace));
        Ok(objects)
    }

    /// Every change of `resource` from now on: first all objects as `ADDED`. Ends with the program.
    ///
    /// # Errors
    /// No program runs under this instance name; manifests cannot be watched.
    pub fn watch(
        &self,
        resource: Resource,
        namespace: Option<&str>,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<WatchEvent>> + Send + use<>> {
        let Self::Live(instance) = self else {
            anyhow::bail!("--watch needs a running program, not -f");
        };
        if resource == Resource::Connections {
            anyhow::bail!(
                "connections cannot be watched: ask again, as with `watch portico get connections`"
            );
        }
        let lines = client::stream(instance, &format!("/v1/watch/{}", resource.plural()))?.lines();
        let namespace = namespace.map(str::to_owned);
        let events = lines.map(|line| Ok(serde_json::from_str::<WatchEvent>(&line?)?));
        Ok(events.filter(move |event| {
            event.as_ref().map_or(true, |event| {
                is_in(&event.object, resource, namespace.as_deref())
            })
        }))
    }

    /// Asks the running program for something else than objects.
    ///
    /// # Errors
    /// As for [`Self::list`]; there is no running program behind `-f`.
    pub fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Live(instance) => client::get(instance, path),
            Self::Offline(_) => anyhow::bail!("this needs a running program, not -f"),
        }
    }
}

fn is_in(object: &Value, resource: Resource, namespace: Option<&str>) -> bool {
    let of = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str);
    !resource.is_namespaced() || namespace.is_none_or(|wanted| of == Some(wanted))
}
