//! Which method is served where, who may call it, and what the log says of it: the one table. What stands in no row is
//! UNIMPLEMENTED; who has none of a row's roles is refused.

use std::{collections::HashMap, sync::LazyLock};

use crate::types::{Role, Roles};

/// A place where the service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The line's listener (OT): frames in, verdicts out.
    Line,
    /// The office's listener (IT): questions, proofs and releases, never a pixel.
    Office,
    /// The operator's socket in the data directory. It serves what the office does.
    Operator,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Also somebody who has not shown who they are.
    Anybody,
    OneOf(Roles),
}

/// What the log says of a call before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nothing: it tells nothing of a part, or its own entry is the record, as a decision is of a frame.
    No,
    /// That somebody read.
    Read,
    /// That somebody had something done.
    Changed,
    /// The service itself notes it, with what was given away.
    Itself,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `package.Service/Method`.
    pub method: &'static str,
    pub zones: &'static [Zone],
    pub who: Who,
    pub noted: Noted,
}

const LINE: &[Zone] = &[Zone::Line];
const OFFICE: &[Zone] = &[Zone::Office, Zone::Operator];
const EVERYWHERE: &[Zone] = &[Zone::Line, Zone::Office, Zone::Operator];

const ONLY_LINE: Who = one_of(&[Role::Line]);
const EVERY_ROLE: Who = one_of(&Role::ALL);
const READERS: Who = one_of(&[Role::Qa, Role::Auditor, Role::Reviewer]);
const EVERY_OFFICE_ROLE: Who =
    one_of(&[Role::Qa, Role::Steward, Role::Approver, Role::Auditor, Role::Reviewer, Role::Admin]);

const fn one_of(roles: &[Role]) -> Who {
    Who::OneOf(Roles::of(roles))
}

const fn row(method: &'static str, zones: &'static [Zone], who: Who, noted: Noted) -> Rule {
    Rule { method, zones, who, noted }
}

/// Every method that is served.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    row("grpc.health.v1.Health/Check", EVERYWHERE, Who::Anybody, Noted::No),
    row("grpc.health.v1.Health/List", EVERYWHERE, Who::Anybody, Noted::No),
    row("grpc.health.v1.Health/Watch", EVERYWHERE, Who::Anybody, Noted::No),
    row("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", EVERYWHERE, EVERY_ROLE, Noted::No),

    row("lineproof.v1.InspectionService/Inspect", LINE, ONLY_LINE, Noted::No),
    row("lineproof.v1.InspectionService/InspectStream", LINE, ONLY_LINE, Noted::No),
    row("lineproof.v1.InspectionService/GetPart", LINE, ONLY_LINE, Noted::No),
    row("lineproof.v1.InspectionService/ClosePeriod", LINE, ONLY_LINE, Noted::No),
    row("inference.GRPCInferenceService/ServerLive", LINE, Who::Anybody, Noted::No),
    row("inference.GRPCInferenceService/ServerReady", LINE, Who::Anybody, Noted::No),
    row("inference.GRPCInferenceService/ServerMetadata", LINE, ONLY_LINE, Noted::No),
    row("inference.GRPCInferenceService/ModelReady", LINE, ONLY_LINE, Noted::No),
    row("inference.GRPCInferenceService/ModelMetadata", LINE, ONLY_LINE, Noted::No),
    row("inference.GRPCInferenceService/ModelConfig", LINE, ONLY_LINE, Noted::No),
    row("inference.GRPCInferenceService/RepositoryIndex", LINE, ONLY_LINE, Noted::No),
    row("inference.GRPCInferenceService/ModelInfer", LINE, ONLY_LINE, Noted::No),
    row("inference.GRPCInferenceService/ModelStreamInfer", LINE, ONLY_LINE, Noted::No),

    // Hashes and signatures: they tell nothing of a part.
    row("lineproof.v1.AuditService/GetCheckpoint", OFFICE, EVERY_OFFICE_ROLE, Noted::No),
    row("lineproof.v1.AuditService/GetInclusionProof", OFFICE, EVERY_OFFICE_ROLE, Noted::No),
    row("lineproof.v1.AuditService/GetConsistencyProof", OFFICE, EVERY_OFFICE_ROLE, Noted::No),
    row("lineproof.v1.AuditService/GetPassport", OFFICE, READERS, Noted::Itself),
    row("lineproof.v1.AuditService/Export", OFFICE, one_of(&[Role::Qa, Role::Auditor]), Noted::Itself),

    row("lineproof.v1.HistoryService/GetDecision", OFFICE, READERS, Noted::Itself),
    row("lineproof.v1.HistoryService/ListDecisions", OFFICE, READERS, Noted::Read),
    row("lineproof.v1.HistoryService/CountDecisions", OFFICE, READERS, Noted::Read),

    row("lineproof.v1.RegistryService/ListRecipes", OFFICE, EVERY_OFFICE_ROLE, Noted::No),
    row("lineproof.v1.RegistryService/Activate", OFFICE, one_of(&[Role::Steward]), Noted::Changed),
    row("lineproof.v1.RegistryService/RollBack", OFFICE, one_of(&[Role::Steward, Role::Qa]), Noted::Changed),
    row("lineproof.v1.RegistryService/Reload", OFFICE, one_of(&[Role::Steward, Role::Admin]), Noted::Changed),

    row("lineproof.v1.ReplayService/Replay", OFFICE, one_of(&[Role::Qa, Role::Steward]), Noted::Changed),

    row("lineproof.v1.RetentionService/Erase", OFFICE, one_of(&[Role::Admin]), Noted::Changed),
    row("lineproof.v1.RetentionService/Run", OFFICE, one_of(&[Role::Admin]), Noted::Changed),
    row("lineproof.v1.RetentionService/AddHold", OFFICE, one_of(&[Role::Qa]), Noted::Changed),
    row("lineproof.v1.RetentionService/ReleaseHold", OFFICE, one_of(&[Role::Qa]), Noted::Changed),
    row("lineproof.v1.RetentionService/ListHolds", OFFICE, one_of(&[Role::Qa, Role::Auditor, Role::Admin]), Noted::Read),
];

/// The rule for the path of a request, `/package.Service/Method`.
#[must_use]
pub fn rule(path: &str) -> Option<&'static Rule> {
    static BY_PATH: LazyLock<HashMap<&'static str, &'static Rule>> =
        LazyLock::new(|| RULES.iter().map(|rule| (rule.method, rule)).collect());
    BY_PATH.get(path.strip_prefix('/')?).copied()
}

/// The services of a zone, each once.
#[must_use]
pub fn services(zone: Zone) -> Vec<&'static str> {
    let of_zone = RULES.iter().filter(|rule| rule.zones.contains(&zone));
    let mut services: Vec<_> =
        of_zone.filter_map(|rule| rule.method.split_once('/')).map(|(service, _)| service).collect();
    services.dedup();
    services
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorSet, ServiceDescriptorProto, field_descriptor_proto::Type};

    use super::*;
    use crate::edge::pb;

    fn descriptors() -> FileDescriptorSet {
        FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap()
    }

    /// Every service with its full name.
    fn described() -> Vec<(String, ServiceDescriptorProto)> {
        let files = descriptors().file;
        let of_file = files.into_iter().flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().map(move |service| (format!("{package}.{}", service.name()), service))
        });
        of_file.collect()
    }

    #[test]
    fn every_method_has_one_rule_and_line_and_office_share_none_but_health_and_reflection() {
        let mut methods = BTreeSet::new();
        for (name, service) in described() {
            methods.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
        }
        let ruled: BTreeSet<String> = RULES.iter().map(|rule| rule.method.to_owned()).collect();
        assert_eq!(ruled.len(), RULES.len(), "a method has two rules");
        let without: Vec<_> = methods.difference(&ruled).collect();
        assert!(without.is_empty(), "say in the table who may call {without:?}, and where");
        let standard = |method: &&String| method.starts_with("grpc.");
        let of_nothing: Vec<_> = ruled.difference(&methods).filter(|method| !standard(method)).collect();
        assert!(of_nothing.is_empty(), "{of_nothing:?} are no methods");
        for rule in RULES.iter().filter(|rule| !rule.method.starts_with("grpc.")) {
            let both = rule.zones.contains(&Zone::Line) && rule.zones.contains(&Zone::Office);
            assert!(!both && !rule.zones.is_empty(), "{}", rule.method);
            if let Who::OneOf(roles) = rule.who {
                assert_eq!(roles.has(Role::Line), rule.zones == LINE, "{}: the line's role is the line's", rule.method);
            }
        }
        assert_eq!(super::services(Zone::Office), super::services(Zone::Operator));
    }

    /// Every message that can be part of `message`, itself included, by full name.
    fn reach(message: &str, all: &[(String, DescriptorProto)], found: &mut BTreeSet<String>) {
        let Some((name, descriptor)) = all.iter().find(|(name, _)| name == message) else { return };
        if !found.insert(name.clone()) {
            return;
        }
        for field in &descriptor.field {
            if field.r#type() == Type::Message {
                reach(field.type_name().trim_start_matches('.'), all, found);
            }
        }
    }

    fn messages(prefix: &str, messages: &[DescriptorProto], all: &mut Vec<(String, DescriptorProto)>) {
        for message in messages {
            let name = format!("{prefix}.{}", message.name());
            self::messages(&name, &message.nested_type, all);
            all.push((name, message.clone()));
        }
    }

    /// Fields of bytes in answers of the office: what each holds. None holds pixels.
    const BYTES_IN_ANSWERS: &[&str] = &[
        // An entry as it is stored, at most 8 KiB of JSON: docs/spec/entry.md.
        "lineproof.v1.DecisionRow.entry",
        // RFC 6962 hashes.
        "lineproof.v1.DecisionRow.leaf_hash",
        "lineproof.v1.GetConsistencyProofResponse.hashes",
        "lineproof.v1.GetInclusionProofResponse.hashes",
        "lineproof.v1.GetInclusionProofResponse.leaf_hash",
        // Files for auditors: evidence in a ZIP, a receipt in CBOR; docs/spec/export.md and receipt.md say what is in them.
        "lineproof.v1.ExportResponse.data",
        "lineproof.v1.Passport.receipt",
    ];

    #[test]
    fn no_answer_outside_the_line_has_a_field_that_could_hold_an_image() {
        let mut all = Vec::new();
        for file in &descriptors().file {
            messages(file.package(), &file.message_type, &mut all);
        }
        let outside: BTreeSet<&str> = super::services(Zone::Office).into_iter().collect();
        let mut bytes = BTreeSet::new();
        for (name, service) in described().into_iter().filter(|(name, _)| outside.contains(name.as_str())) {
            for method in &service.method {
                let mut reached = BTreeSet::new();
                reach(method.output_type().trim_start_matches('.'), &all, &mut reached);
                assert!(!reached.is_empty(), "{name}.{}", method.name());
                assert!(!reached.contains("lineproof.v1.Image"), "{name}.{} answers with an image", method.name());
                for message in reached {
                    let (_, descriptor) = all.iter().find(|(name, _)| *name == message).unwrap();
                    let fields = descriptor.field.iter().filter(|field| field.r#type() == Type::Bytes);
                    bytes.extend(fields.map(|field| format!("{message}.{}", field.name())));
                }
            }
        }
        let known: BTreeSet<String> = BYTES_IN_ANSWERS.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(bytes, known, "a field of bytes in an answer: say here what it holds");
    }
}
