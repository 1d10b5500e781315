//! Which service is served where. Everything that is not named for a listener is UNIMPLEMENTED there.

/// The line's listener (OT): frames in, verdicts out.
pub const LINE: &[&str] =
    &["grpc.health.v1.Health", "inference.GRPCInferenceService", "lineproof.v1.InspectionService"];

/// The office's listener (IT): questions and proofs, never a pixel.
pub const OFFICE: &[&str] = &["grpc.health.v1.Health", "lineproof.v1.AuditService", "lineproof.v1.HistoryService"];

/// The operator's socket in the data directory: the office's questions, and what only the operator may do.
pub const OPERATOR: &[&str] = &[
    "lineproof.v1.AuditService",
    "lineproof.v1.HistoryService",
    "lineproof.v1.RegistryService",
    "lineproof.v1.ReplayService",
    "lineproof.v1.RetentionService",
];

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
    fn services() -> Vec<(String, ServiceDescriptorProto)> {
        let files = descriptors().file;
        let of_file = files.into_iter().flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().map(move |service| (format!("{package}.{}", service.name()), service))
        });
        of_file.collect()
    }

    #[test]
    fn every_service_has_its_place_and_line_and_office_share_none_but_health() {
        let all: BTreeSet<&str> = [LINE, OFFICE, OPERATOR].concat().into_iter().collect();
        for (name, _) in services() {
            assert!(all.contains(name.as_str()), "{name} is served nowhere: say in this file where");
        }
        let line: BTreeSet<&str> = LINE.iter().copied().collect();
        let office: BTreeSet<&str> = OFFICE.iter().copied().collect();
        assert_eq!(line.intersection(&office).collect::<Vec<_>>(), [&"grpc.health.v1.Health"]);
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
        let outside: BTreeSet<&str> = [OFFICE, OPERATOR].concat().into_iter().collect();
        let mut bytes = BTreeSet::new();
        for (name, service) in services().into_iter().filter(|(name, _)| outside.contains(name.as_str())) {
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
