//! TEMPORARY
use steadfast_core::*;
use steadfast_storage::UnifiedStore;
pub(crate) trait Shim {
    fn floors(&self) -> Vec<(RetentionDomain, RetentionFloor)> { Vec::new() }
    fn raise_floors(&self, _: &[(RetentionDomain, RetentionFloor)]) {}
    fn trim(&self, _: Timestamp) {}
    fn set_policy(&self, _: RetentionPolicy) {}
    fn define_namespace_in(&self, _: NamespaceId, _: &Namespace) {}
}
impl Shim for UnifiedStore {}
