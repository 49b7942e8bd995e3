//! Which rule of retention a key has, and up to where the past of its domain is gone.
//!
//! Rules change seldom and are asked for at every drop. They stay as they are while somebody
//! holds them for reading, and whoever drops something does until it is dropped and the floor
//! is raised: so a domain that is split off from another one begins with a floor that knows of
//! everything dropped before.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_core::{
    Key, NamespaceId, Retention, RetentionDomain, RetentionFloor, RetentionPolicy, RunId,
    Timestamp, TypeTag, Version,
};

use crate::forks::{Forks, Pins};

/// The rules, and the floors under them.
pub(crate) struct Rules {
    /// What runs without a rule share.
    general: Domains,
    /// The runs with a rule.
    runs: BTreeMap<RunId, Domains>,
    /// Their namespaces.
    namespaces: BTreeMap<NamespaceId, RunId>,
    /// What is kept for its forks' sake.
    pub forks: Forks,
}

/// What goes for one key.
#[derive(Clone, Copy)]
pub(crate) struct Ruled<'a> {
    pub domain: &'a Domain,
    /// Where its past is read by forks.
    pub pins: Pins<'a>,
    /// Where it is deleted, that hides what lies beneath its run.
    pub may_hide: bool,
}

/// One for each primitive, in the order of [`TypeTag::ALL`].
type Domains = [Domain; TypeTag::ALL.len()];

/// What shares a rule and a floor.
pub(crate) struct Domain {
    pub id: RetentionDomain,
    pub retention: Retention,
    version: AtomicU64,
    clock: AtomicU64,
}

impl Domain {
    fn new(id: RetentionDomain, retention: Retention, floor: RetentionFloor) -> Self {
        let (version, clock) = (floor.version.0.into(), floor.clock.as_micros().into());
        Self { id, retention, version, clock }
    }

    pub(crate) fn floor(&self) -> RetentionFloor {
        RetentionFloor {
            version: Version(self.version.load(Ordering::Acquire)),
            clock: Timestamp::from_micros(self.clock.load(Ordering::Acquire)),
        }
    }

    /// Raises the floor to `floor`, in each part.
    pub(crate) fn raise(&self, floor: RetentionFloor) {
        self.version.fetch_max(floor.version.0, Ordering::AcqRel);
        self.clock.fetch_max(floor.clock.as_micros(), Ordering::AcqRel);
    }

    /// Whether everything of the domain is there for a reader.
    pub(crate) fn is_readable(&self, version: Version, now: Timestamp) -> bool {
        let floor = self.floor();
        version >= floor.version && now >= floor.clock
    }
}

fn domains(
    run: Option<RunId>,
    retention: impl Fn(TypeTag) -> Retention,
    floor: impl Fn(TypeTag) -> RetentionFloor,
) -> Domains {
    TypeTag::ALL.map(|tag| Domain::new(RetentionDomain { run, tag }, retention(tag), floor(tag)))
}

/// The one of a primitive. What is not a stored key counts as a key-value pair.
fn of_tag(domains: &Domains, tag: Option<TypeTag>) -> &Domain {
    let tag = tag.unwrap_or(TypeTag::Kv);
    domains.iter().find(|domain| domain.id.tag == tag).expect("there is one for each tag")
}

impl Rules {
    /// Of a store without any history.
    pub(crate) fn new(policy: &RetentionPolicy) -> Self {
        let none = |_| RetentionFloor::default();
        let of_run = |(run, retention)| (run, domains(Some(run), |_| retention, none));
        Self {
            general: domains(None, |tag| policy.of_primitive(tag), none),
            runs: policy.runs().map(of_run).collect(),
            namespaces: BTreeMap::new(),
            forks: Forks::default(),
        }
    }

    /// The same floors under other rules. A run that gets a rule begins with the floor of those
    /// that have none, and one that loses its rule leaves them its own.
    pub(crate) fn changed(
        &self,
        policy: &RetentionPolicy,
        namespaces: impl IntoIterator<Item = (NamespaceId, RunId)>,
    ) -> Self {
        let floor_of = |domains: &Domains, tag| of_tag(domains, Some(tag)).floor();
        let general = domains(
            None,
            |tag| policy.of_primitive(tag),
            |tag| {
                let lose_theirs =
                    self.runs.iter().filter(|(run, _)| policy.of_run(**run).is_none());
                let theirs = lose_theirs.map(|(_, domains)| floor_of(domains, tag));
                theirs.fold(floor_of(&self.general, tag), RetentionFloor::max)
            },
        );
        let of_run = |(run, retention): (RunId, _)| {
            let before = self.runs.get(&run).unwrap_or(&self.general);
            (run, domains(Some(run), |_| retention, |tag| floor_of(before, tag)))
        };
        let known = self.namespaces.iter().map(|(id, run)| (*id, *run)).chain(namespaces);
        Self {
            general,
            runs: policy.runs().map(of_run).collect(),
            namespaces: known.filter(|(_, run)| policy.of_run(*run).is_some()).collect(),
            forks: self.forks.clone(),
        }
    }

    /// Whether a run has a rule whose namespace `id` is not known yet.
    pub(crate) fn wants(&self, id: NamespaceId, run: RunId) -> bool {
        self.runs.contains_key(&run) && !self.namespaces.contains_key(&id)
    }

    /// Notes the namespace of a run that has a rule.
    pub(crate) fn define(&mut self, id: NamespaceId, run: RunId) {
        self.namespaces.insert(id, run);
    }

    /// What goes for a stored key.
    #[inline]
    pub(crate) fn of_key(&self, key: &[u8]) -> Ruled<'_> {
        let (pins, may_hide) = (self.forks.pins_of(key), self.forks.may_hide(key));
        Ruled { domain: self.domain(key), pins, may_hide }
    }

    /// The domain of a stored key.
    #[inline]
    pub(crate) fn domain(&self, key: &[u8]) -> &Domain {
        of_tag(self.of_namespace(Key::namespace_of(key)), Key::tag_of(key))
    }

    fn of_namespace(&self, namespace: Option<NamespaceId>) -> &Domains {
        if self.namespaces.is_empty() {
            return &self.general;
        }
        let run = namespace.and_then(|id| self.namespaces.get(&id));
        run.and_then(|run| self.runs.get(run)).unwrap_or(&self.general)
    }

    /// Every domain.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Domain> {
        self.general.iter().chain(self.runs.values().flatten())
    }

    /// Raises floors that were kept elsewhere. A run that had no rule then takes the one of
    /// those that had none.
    pub(crate) fn raise(&self, floors: &[(RetentionDomain, RetentionFloor)]) {
        for (id, floor) in floors {
            let domains = id.run.and_then(|run| self.runs.get(&run)).unwrap_or(&self.general);
            of_tag(domains, Some(id.tag)).raise(*floor);
        }
        for domain in self.runs.values().flatten() {
            let had_its_own = floors.iter().any(|(id, _)| id.run == domain.id.run);
            if !had_its_own {
                domain.raise(of_tag(&self.general, Some(domain.id.tag)).floor());
            }
        }
    }

    /// Calls `look` with every domain that may have a key within some bounds.
    pub(crate) fn for_each_within(
        &self,
        lower: &Bound<Vec<u8>>,
        upper: &Bound<Vec<u8>>,
        mut look: impl FnMut(&Domain),
    ) {
        let first = match lower {
            Bound::Unbounded => 0,
            Bound::Included(key) | Bound::Excluded(key) => place_of(key),
        };
        let last = match upper {
            Bound::Unbounded => u64::MAX >> 24,
            // Nothing below it begins as it does.
            Bound::Excluded(key) if key.len() <= Key::PREFIX_BYTES => {
                let Some(last) = place_of(key).checked_sub(1) else { return };
                last
            }
            Bound::Included(key) | Bound::Excluded(key) => place_of(key),
        };
        if first > last {
            return;
        }
        let (low, high) = (first >> 8, last >> 8);
        let mut any = false;
        let mut within = |domains: &Domains, namespace: u64| {
            for domain in domains {
                let place = namespace << 8 | domain.id.tag as u64;
                if (first..=last).contains(&place) {
                    any = true;
                    look(domain);
                }
            }
        };
        let mut with_rule = 0;
        for (id, run) in &self.namespaces {
            if (low..=high).contains(&u64::from(id.0)) {
                with_rule += 1;
                within(&self.runs[run], u64::from(id.0));
            }
        }
        let has_rule = |namespace: u64| {
            let id = u32::try_from(namespace).map(NamespaceId);
            id.is_ok_and(|id| self.namespaces.contains_key(&id))
        };
        let in_between = high.saturating_sub(low + 1);
        let ends = [low, high];
        ends.iter().filter(|end| !has_rule(**end)).for_each(|end| within(&self.general, *end));
        let ends_with_rule = u64::from(has_rule(low)) + u64::from(high > low && has_rule(high));
        if in_between > with_rule - ends_with_rule {
            self.general.iter().for_each(look);
        } else if !any {
            // No stored keys are in there.
            look(of_tag(&self.general, None));
        }
    }
}

/// Where a key's namespace and tag stand among all there can be.
fn place_of(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(Key::PREFIX_BYTES);
    bytes[3..3 + len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}
