//! Which sockets a Snapshot needs: wanted minus running. Owns listener keys, shapes and the difference; binding
//! belongs to the data path's listeners.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{
    ClientPlace, Cluster, FrontendKey, FrontendKind, PortView, Scope, ServiceView, Verdict,
    access::sources_of,
    compile::Transition,
    filter::{Filter, Guard},
};
use crate::object::{Protocol, service::IpFamily};

/// Identity of a Listener: what socket it is, not what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// Where the socket lives.
    pub scope: Scope,
    /// What it is bound to.
    pub bind: Bind,
    /// Port as declared.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What a listener is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bind {
    /// One address.
    Address(IpAddr),
    /// `0.0.0.0`: node ports, and every VIP with the same port number.
    Any,
    /// `0.0.0.0` bound to the loopback device: many VIPs with one port number behind one descriptor. Also hears
    /// nothing from the network.
    AnyLoopback,
    /// `::` for IPv6 alone, beside [`Bind::Any`]: the same for the other family.
    AnyV6,
}

impl Bind {
    /// The socket for every host address of a family.
    pub const fn any(family: IpFamily) -> Self {
        match family {
            IpFamily::IPv4 => Self::Any,
            IpFamily::IPv6 => Self::AnyV6,
        }
    }

    /// The address to bind.
    pub const fn addr(self) -> IpAddr {
        match self {
            Self::Address(addr) => addr,
            Self::Any | Self::AnyLoopback => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::AnyV6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// Whether a listener takes connections: a state of the socket, not part of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Accepts.
    Listening,
    /// No usable endpoint behind any of its frontends: the kernel refuses.
    Refusing,
}

/// What changes between the sockets that run and those that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerPlan {
    /// To bind, each with the mode to start in and the Services it is for.
    pub bind: Vec<(ListenerKey, Mode, Arc<str>)>,
    /// To close; established connections go on.
    pub close: Vec<ListenerKey>,
    /// To switch between listening and refusing.
    pub switch: Vec<(ListenerKey, Mode)>,
    /// Filters of listeners that have none yet or are to be bound: put on before the Snapshot that they speak for.
    pub tighten: Vec<(ListenerKey, Arc<Filter>)>,
    /// Filters that replace others or, with `None`, go: after it.
    pub loosen: Vec<(ListenerKey, Option<Arc<Filter>>)>,
}

impl ListenerPlan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        let sockets = self.bind.is_empty() && self.close.is_empty() && self.switch.is_empty();
        sockets && self.tighten.is_empty() && self.loosen.is_empty()
    }
}

/// The port number, protocol and family that frontends share: the unit in which a socket's shape is decided.
type Group = (u16, Protocol, IpFamily);

/// The mode that a socket should be in, and the Services it is for.
type Wish = (Mode, Arc<str>);

/// What happens to one socket within a plan: its mode before, and what becomes of it.
#[derive(Debug, Clone)]
struct Draft {
    before: Option<Mode>,
    wish: Option<Wish>,
}

/// The plan on its way: however often a socket is decided about, one entry results.
type Drafts = BTreeMap<ListenerKey, Draft>;

/// Frontends of one group by address.
type Members = BTreeMap<IpAddr, Member>;

#[derive(Debug, Clone)]
struct Member {
    service: Arc<str>,
    mode: Mode,
    guard: Guard,
}

/// The listeners of one scope that run, as the plans so far have made them. Changes cost what they change; only a group whose
/// shape changes (a node port appears on its number, it collapses) is gone through whole.
#[derive(Debug, Clone)]
pub struct ListenerTable {
    scope: Scope,
    groups: BTreeMap<Group, Members>,
    running: BTreeMap<ListenerKey, Mode>,
    /// Most listeners that may run; above it the numbers with most VIPs collapse to one socket each.
    budget: usize,
    collapsed: BTreeSet<Group>,
    /// Ports that a wildcard socket has in any case.
    shared: BTreeSet<u16>,
    /// Ports where some socket that is no listener stands in the way of a wildcard.
    apart: BTreeSet<(Protocol, u16)>,
    /// Whose ranges guards are made of; without it nothing is guarded.
    cluster: Option<Arc<Cluster>>,
    /// Of the listeners that run, those that drop something.
    filters: BTreeMap<ListenerKey, Arc<Filter>>,
    /// Filters before the plan that is being made, of listeners whose filters it changes.
    replaced: BTreeMap<ListenerKey, Option<Arc<Filter>>>,
}

impl ListenerTable {
    /// A table of the host with no listener, for at most `budget` of them.
    pub fn new(budget: usize) -> Self {
        Self {
            scope: Scope::HOST,
            groups: BTreeMap::new(),
            running: BTreeMap::new(),
            budget,
            collapsed: BTreeSet::new(),
            shared: BTreeSet::new(),
            apart: BTreeSet::new(),
            cluster: None,
            filters: BTreeMap::new(),
            replaced: BTreeMap::new(),
        }
    }

    /// The same for another scope. Whatever is local there is reached through the loopback device alone, so that one
    /// socket may hear all addresses with one port number, whichever they are.
    pub const fn of(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Plans filters too, by the ranges and addresses of this cluster.
    pub fn guarding(mut self, cluster: Arc<Cluster>) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// With these ports, a wildcard socket serves every IPv4 address there: one that the process was
    /// started with, beside which no other can be bound.
    pub fn sharing(mut self, ports: BTreeSet<u16>) -> Self {
        self.shared = ports;
        self
    }

    /// Never gives the addresses of these ports one socket for all, over whatever budget: a socket on a
    /// single address of such a port, which is no listener of this table, would keep it from being bound.
    pub fn keeping_apart(mut self, ports: BTreeSet<(Protocol, u16)>) -> Self {
        self.apart = ports;
        self
    }

    /// Number of listeners that run.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether some frontend is declared for this address and port, of whatever protocol: a fallback port must not be
    /// one.
    pub fn is_declared(&self, addr: IpAddr, port: u16) -> bool {
        let family = IpFamily::of(addr);
        let wildcard = any_address(family);
        let group = |protocol| self.groups.get(&(port, protocol, family));
        let mut groups = [Protocol::Tcp, Protocol::Udp].into_iter().filter_map(group);
        groups.any(|members| {
            addr.is_unspecified() || members.contains_key(&addr) || members.contains_key(&wildcard)
        })
    }

    /// Enters the transitions of a new snapshot and says what to do.
    pub fn apply(&mut self, transitions: &[Transition]) -> ListenerPlan {
        let mut touched: BTreeMap<Group, BTreeSet<IpAddr>> = BTreeMap::new();
        for transition in transitions {
            if let Some(view) = &transition.before {
                self.leave(view, &mut touched);
            }
        }
        for transition in transitions {
            if let Some(view) = &transition.after {
                self.enter(view, &mut touched);
            }
        }
        let mut drafts = Drafts::new();
        for (group, addrs) in touched {
            self.reshape(group, &addrs, &mut drafts);
        }
        self.keep_budget(&mut drafts);
        let mut plan = plan_of(drafts);
        self.plan_filters(&mut plan);
        plan
    }

    /// What closes every listener.
    pub fn end(self) -> ListenerPlan {
        ListenerPlan {
            close: self.running.into_keys().collect(),
            loosen: self.filters.into_keys().map(|key| (key, None)).collect(),
            ..ListenerPlan::default()
        }
    }

    fn leave(&mut self, view: &ServiceView, touched: &mut BTreeMap<Group, BTreeSet<IpAddr>>) {
        let path = view.path();
        for (key, _, _) in view
            .frontends
            .iter()
            .filter(|(key, _, _)| key.protocol.is_forwarded())
        {
            if let Some(members) = self.groups.get_mut(&group_of(key))
                && members
                    .get(&key.addr)
                    .is_some_and(|member| *member.service == *path)
            {
                members.remove(&key.addr);
                touched.entry(group_of(key)).or_default().insert(key.addr);
            }
        }
    }

    fn enter(&mut self, view: &ServiceView, touched: &mut BTreeMap<Group, BTreeSet<IpAddr>>) {
        let path: Arc<str> = view.path().into();
        for (key, kind, index) in view
            .frontends
            .iter()
            .filter(|(key, _, _)| key.protocol.is_forwarded())
        {
            let mode = view
                .ports
                .get(*index)
                .map_or(Mode::Refusing, |port| mode_of(port, *kind));
            let member = Member {
                service: Arc::clone(&path),
                mode,
                guard: self.guard(view, (key, *kind, *index)),
            };
            self.groups
                .entry(group_of(key))
                .or_default()
                .insert(key.addr, member);
            touched.entry(group_of(key)).or_default().insert(key.addr);
        }
    }

    /// Brings the listeners of one group in line, looking only at `addrs` unless its shape changes.
    fn reshape(&mut self, group: Group, addrs: &BTreeSet<IpAddr>, drafts: &mut Drafts) {
        let empty = Members::new();
        let members = self.groups.get(&group).unwrap_or(&empty);
        let family = group.2;
        let any = self.listener(group, Bind::any(family));
        let lo = self.listener(group, Bind::AnyLoopback);
        let mut wishes: Vec<(ListenerKey, Option<Wish>)> = Vec::new();
        // One wildcard socket hears every address of its family: VIPs with its number need none of their own. One on
        // the loopback device hears nothing from the network.
        let one_for_all =
            if members.contains_key(&any_address(family)) || self.shares(group, members) {
                Some(any)
            } else {
                let is_collapsed = self.collapsed.contains(&group) && self.may_collapse(members);
                is_collapsed.then_some(match family {
                    IpFamily::IPv4 => lo,
                    IpFamily::IPv6 => any,
                })
            };
        // The socket on the loopback device is of the other family: what collapses of IPv6 has the other wildcard.
        let shared_sockets = [any, lo].into_iter().take(match family {
            IpFamily::IPv4 => 2,
            IpFamily::IPv6 => 1,
        });
        for key in shared_sockets.clone() {
            let is_wanted = one_for_all == Some(key);
            wishes.push((
                key,
                is_wanted.then(|| {
                    let runs = self.running.contains_key(&key);
                    // Names are for a socket that is to be bound: a group may be large.
                    let services = if runs { "".into() } else { names(members) };
                    (shared_mode(members), services)
                }),
            ));
        }
        let had_one_for_all = shared_sockets
            .into_iter()
            .any(|key| self.running.contains_key(&key));
        let shape_changes = had_one_for_all != one_for_all.is_some();
        let concerned: Vec<IpAddr> = if shape_changes {
            members.keys().chain(addrs).copied().collect()
        } else {
            addrs.iter().copied().collect()
        };
        for addr in concerned.into_iter().filter(|addr| !addr.is_unspecified()) {
            let member = members.get(&addr).filter(|_| one_for_all.is_none());
            let wish = member.map(|member| (member.mode, Arc::clone(&member.service)));
            wishes.push((self.listener(group, Bind::Address(addr)), wish));
        }
        let filters: Vec<_> = wishes
            .iter()
            .map(|(key, wish)| (*key, wish.as_ref().and_then(|_| self.filter(*key, members))))
            .collect();
        if members.is_empty() {
            self.groups.remove(&group);
            self.collapsed.remove(&group);
        }
        for (key, wish) in wishes {
            self.wish(key, wish, drafts);
        }
        for (key, filter) in filters {
            self.set_filter(key, filter);
        }
    }

    /// Who may connect to a frontend. Datagrams are dropped where they are read: only TCP needs a filter to be silent.
    fn guard(
        &self,
        view: &ServiceView,
        (key, kind, index): (&FrontendKey, FrontendKind, usize),
    ) -> Guard {
        let cluster = self
            .cluster
            .as_ref()
            .filter(|_| key.protocol == Protocol::Tcp);
        let Some((cluster, port)) = cluster.zip(view.ports.get(index)) else {
            return Guard::OPEN;
        };
        let sources = sources_of(&view.spec, (key, kind), cluster.source_range_reach);
        Guard::of(port, (key.addr, kind), sources.as_deref(), cluster)
    }

    fn filter(&self, key: ListenerKey, members: &Members) -> Option<Filter> {
        let cluster = self.cluster.as_ref()?;
        match key.bind {
            Bind::Address(addr) => {
                let heard = members.get(&addr).map(|member| (addr, &member.guard));
                Filter::of(heard.into_iter(), cluster)
            }
            // Rules for addresses that it does not hear do no harm.
            _ => Filter::of(
                members.iter().map(|(addr, member)| (*addr, &member.guard)),
                cluster,
            ),
        }
    }

    fn set_filter(&mut self, key: ListenerKey, filter: Option<Filter>) {
        let before = self.filters.get(&key);
        if before.map(|before| &**before) == filter.as_ref() {
            return;
        }
        let before = before.cloned();
        self.replaced.entry(key).or_insert(before);
        match filter {
            Some(filter) => self.filters.insert(key, Arc::new(filter)),
            None => self.filters.remove(&key),
        };
    }

    fn plan_filters(&mut self, plan: &mut ListenerPlan) {
        for (key, before) in std::mem::take(&mut self.replaced) {
            let after = self.filters.get(&key).cloned();
            match (before, after) {
                (before, after) if before == after => {}
                (None, Some(after)) => plan.tighten.push((key, after)),
                (_, after) => plan.loosen.push((key, after)),
            }
        }
    }

    fn shares(&self, (port, _, family): Group, members: &Members) -> bool {
        family == IpFamily::IPv4 && self.shared.contains(&port) && !members.is_empty()
    }

    fn listener(&self, (port, protocol, _): Group, bind: Bind) -> ListenerKey {
        ListenerKey {
            scope: self.scope,
            bind,
            port,
            protocol,
        }
    }

    /// Whether one socket can hear all of them and nothing from the network.
    fn may_collapse(&self, members: &Members) -> bool {
        let is_heard = |addr: &IpAddr| addr.is_ipv4() && addr.is_loopback();
        !members.is_empty() && (self.scope != Scope::HOST || members.keys().all(is_heard))
    }

    fn wish(&mut self, key: ListenerKey, wish: Option<Wish>, drafts: &mut Drafts) {
        let running = match &wish {
            Some((mode, _)) => self.running.insert(key, *mode),
            None => self.running.remove(&key),
        };
        let mode = wish.as_ref().map(|(mode, _)| *mode);
        if running == mode {
            return;
        }
        let draft = drafts.entry(key).or_insert(Draft {
            before: running,
            wish: None,
        });
        let names = draft.wish.take().map(|(_, names)| names);
        draft.wish = wish.map(|(mode, services)| {
            // One that is bound by this plan and changes its mode in it was named when it was first wished for.
            (mode, names.unwrap_or(services))
        });
    }

    /// Over budget, the port numbers with most VIPs get one socket on the loopback device instead of one each.
    fn keep_budget(&mut self, drafts: &mut Drafts) {
        while self.running.len() > self.budget {
            let may_help = |(group, members): &(&Group, &Members)| {
                !self.collapsed.contains(*group)
                    && !self.apart.contains(&(group.1, group.0))
                    && members.len() > 1
                    && self.may_collapse(members)
            };
            let largest = self
                .groups
                .iter()
                .filter(may_help)
                .max_by_key(|(_, members)| members.len());
            let Some(group) = largest.map(|(group, _)| *group) else {
                return;
            };
            self.collapsed.insert(group);
            self.reshape(group, &BTreeSet::new(), drafts);
        }
    }
}

/// The address that stands for every address of the host of a family.
pub const fn any_address(family: IpFamily) -> IpAddr {
    Bind::any(family).addr()
}

fn group_of(key: &FrontendKey) -> Group {
    (key.port, key.protocol, IpFamily::of(key.addr))
}

fn plan_of(drafts: Drafts) -> ListenerPlan {
    let mut plan = ListenerPlan::default();
    for (key, Draft { before, wish }) in drafts {
        match (before, wish) {
            (None, Some((mode, services))) => plan.bind.push((key, mode, services)),
            (Some(_), None) => plan.close.push(key),
            (Some(before), Some((mode, _))) if before != mode => plan.switch.push((key, mode)),
            _ => {}
        }
    }
    plan
}

/// A shared socket listens while any of its frontends can serve.
fn shared_mode(members: &Members) -> Mode {
    if members
        .values()
        .any(|member| member.mode == Mode::Listening)
    {
        Mode::Listening
    } else {
        Mode::Refusing
    }
}

/// The Services of a group for people: the first ones by name, and how many more.
fn names(members: &Members) -> Arc<str> {
    let mut services: Vec<&str> = members.values().map(|member| &*member.service).collect();
    services.sort_unstable();
    services.dedup();
    match services.as_slice() {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len()).into()
        }
        few => few.join(", ").into(),
    }
}

fn mode_of(port: &PortView, kind: FrontendKind) -> Mode {
    if kind == FrontendKind::HealthCheck {
        return Mode::Listening;
    }
    match port.verdict(kind, ClientPlace::OnNode) {
        // A request is answered with a status that says why, which takes a connection.
        Verdict::Refuse if !port.app.protocol.is_http() => Mode::Refusing,
        Verdict::Refuse | Verdict::Forward(_) | Verdict::Drop => Mode::Listening,
    }
}

#[cfg(test)]
mod tests;
