//! Histories: documents come, change, break and go in files and in an override, pods and probes answer or do not,
//! people ask for things, time passes. After each step the [`Bench`] checks; at the end the same bytes must have
//! given the same world.

use std::{sync::Arc, time::Duration};

use portico::source::manifest::{ManifestSettings, Strictness, load};
use portico_core::world::{
    Layer, Shard, Simulation, SourceReport, SourceView,
    pods::{
        ContainerChange, Fault, PodAction, PodCommand, PodKey, PodObservation, PodUid, WantedPort,
    },
    probes::{ProbeObservation, ProbeOutcome},
};

use super::{
    bench::{Bench, Seen},
    documents::document,
    draw::Draw,
};

/// Steps; longer histories teach nothing that shorter ones do not.
const MOST_STEPS: usize = 48;
/// Files with up to this many documents each; the last one is an override.
const FILES: usize = 3;
const DOCUMENTS: usize = 4;

pub(crate) fn check(bytes: &[u8]) {
    let first = run(bytes);
    assert_eq!(first, run(bytes), "the same bytes give the same world");
}

fn run(bytes: &[u8]) -> String {
    let mut draw = Draw::new(bytes);
    let simulation = if draw.is_so() {
        Simulation::On
    } else {
        Simulation::Off
    };
    let mut history = History {
        bench: Bench::new(simulation),
        draw,
        files: Default::default(),
        shards: Default::default(),
        state: SourceState::Synced,
        started: Vec::new(),
    };
    for _ in 0..MOST_STEPS {
        if history.draw.is_over() {
            break;
        }
        history.step();
    }
    history.bench.tell()
}

/// How the source of the files is.
enum SourceState {
    Pending,
    Synced,
    Failing,
}

struct History<'b> {
    bench: Bench,
    draw: Draw<'b>,
    files: [[String; DOCUMENTS]; FILES],
    shards: [Arc<Shard>; FILES],
    state: SourceState,
    /// Pods that were to start, with their ports.
    started: Vec<(PodUid, Vec<WantedPort>, Arc<str>)>,
}

impl History<'_> {
    fn step(&mut self) {
        let mut seen = Seen::default();
        match self.draw.byte() % 16 {
            0..=6 => self.edit(),
            7 => {
                let (file, at) = (self.draw.below(FILES), self.draw.below(DOCUMENTS));
                self.files[file][at].clear();
                self.load(file);
            }
            8 => {
                let file = self.draw.below(FILES);
                "kind: [".clone_into(&mut self.files[file][0]);
                self.load(file);
            }
            9 | 10 => self.wait(),
            11 | 12 => seen.observations.extend(self.observation()),
            13 => seen.probes.extend(self.probe()),
            14 => seen.commands.extend(self.command()),
            _ => self.trouble(),
        }
        let actions = self.bench.step(&self.reports(), &seen);
        self.remember(actions);
    }

    fn edit(&mut self) {
        let (file, at) = (self.draw.below(FILES), self.draw.below(DOCUMENTS));
        self.files[file][at] = document(&mut self.draw).to_string();
        self.load(file);
    }

    fn load(&mut self, file: usize) {
        let settings = ManifestSettings {
            namespace: "default".into(),
            strictness: Strictness::Lenient,
        };
        let text = self.files[file].join("\n---\n");
        let name = format!("{file}.yaml").into();
        let loaded = load(&name, &text, &settings, Some(&self.shards[file]));
        self.shards[file] = Arc::new(loaded.shard);
    }

    fn reports(&self) -> Vec<SourceReport> {
        let view = |files: std::ops::Range<usize>, layer| SourceView {
            shards: files
                .map(|file| {
                    (
                        format!("{file}.yaml").into(),
                        Arc::clone(&self.shards[file]),
                    )
                })
                .collect(),
            layer,
        };
        let declared = view(0..FILES - 1, Layer::Declared);
        let files = match self.state {
            SourceState::Pending => SourceReport::Pending,
            SourceState::Synced => SourceReport::Synced(declared),
            SourceState::Failing => SourceReport::Failing {
                view: Some(declared),
                error: "gone".into(),
            },
        };
        let overrides = view(FILES - 1..FILES, Layer::Override);
        vec![files, SourceReport::Synced(overrides)]
    }

    fn wait(&mut self) {
        let ms = [0, 1, 100, 1000, 5000, 10_000, 31_000, 700_000][self.draw.below(8)];
        self.bench.now = self.bench.now.after(Duration::from_millis(ms));
    }

    fn trouble(&mut self) {
        match self.draw.below(4) {
            0 => self.state = SourceState::Pending,
            1 => self.state = SourceState::Failing,
            2 => self.state = SourceState::Synced,
            _ => self.bench.world.pod_host_lost(),
        }
    }

    fn remember(&mut self, actions: Vec<PodAction>) {
        for action in actions {
            if let PodAction::Start {
                uid, containers, ..
            } = action
            {
                let ports = self.bench.world.pods().by_uid(uid);
                let ports = ports.map(|pod| portico_core::world::pods::wanted_ports(&pod.spec));
                let name = containers.first().map(|of| Arc::clone(&of.name));
                self.started
                    .push((uid, ports.unwrap_or_default(), name.unwrap_or_default()));
            }
        }
    }

    /// What the pod host says about a pod that was to start once; perhaps it has long gone.
    fn observation(&mut self) -> Option<PodObservation> {
        let newest = self.started.len().checked_sub(1)?;
        let back = self.draw.below(self.started.len());
        let (uid, ports, container) = self.started.get(newest - back)?.clone();
        let moved = self.draw.is_rare();
        let bound = |ports: Vec<WantedPort>| -> Vec<(WantedPort, u16)> {
            let number = |port: WantedPort| {
                if moved {
                    port.number ^ 0x4000
                } else {
                    port.number
                }
            };
            ports
                .into_iter()
                .map(|port| (port, number(port).max(1)))
                .collect()
        };
        Some(match self.draw.below(8) {
            0..=3 => PodObservation::Running {
                uid,
                bound: bound(ports),
            },
            4 => PodObservation::Failed {
                uid,
                reason: "port taken".into(),
            },
            5 => PodObservation::Ended { uid },
            6 => PodObservation::Container {
                uid,
                container,
                became: ContainerChange::Ended,
            },
            _ => PodObservation::Container {
                uid,
                container,
                became: ContainerChange::Running {
                    bound: bound(ports),
                },
            },
        })
    }

    fn probe(&mut self) -> Option<ProbeObservation> {
        let targets = Arc::clone(self.bench.world.probe_targets());
        let (key, _) = targets.iter().nth(self.draw.below(targets.len()))?;
        let reason: Arc<str> = "HTTP probe failed with statuscode: 503".into();
        let outcome = match self.draw.below(3) {
            0 => ProbeOutcome::Success,
            1 => ProbeOutcome::Failure { reason },
            _ => ProbeOutcome::Unhealthy { reason },
        };
        Some(ProbeObservation {
            key: key.clone(),
            outcome,
        })
    }

    fn command(&mut self) -> Option<PodCommand> {
        let pods = &self.bench.world.pods().pods;
        let pod: PodKey = pods.keys().nth(self.draw.below(pods.len()))?.clone();
        let value = |draw: &mut Draw<'_>| draw.is_so().then(|| Arc::from(draw.one(&["a", "b"])));
        Some(match self.draw.below(5) {
            0 => PodCommand::Delete {
                pod,
                grace: self.draw.is_so().then_some(Duration::ZERO),
            },
            1 => PodCommand::Label {
                pod,
                changes: [("app".into(), value(&mut self.draw))].into(),
            },
            2 => PodCommand::Annotate {
                pod,
                changes: [("portico.dev/weight".into(), Some("3".into()))].into(),
            },
            3 => PodCommand::Fault {
                pod,
                fault: [Fault::Ready, Fault::Live, Fault::Port][self.draw.below(3)],
                failing: self.draw.is_so(),
            },
            _ => PodCommand::Reset {
                pod: self.draw.is_so().then_some(pod),
            },
        })
    }
}
