// What tests do to a cluster and librdkafka's wrapper cannot: rights, and leaders by hand.
//
//   Admin BOOTSTRAP grant|revoke PRINCIPAL TOPIC OPERATION,…
//   Admin BOOTSTRAP elect TOPIC            an unclean leader for each partition

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

class AdminTool {
    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, (Object) args[0]))) {
            switch (args[1]) {
                case "grant" -> admin.createAcls(acls(args)).all().get();
                case "revoke" ->
                    admin.deleteAcls(acls(args).stream().map(AclBinding::toFilter).toList()).all().get();
                case "elect" -> elect(admin, args[2]);
                default -> throw new IllegalArgumentException(args[1]);
            }
        }
    }

    static List<AclBinding> acls(String[] args) {
        var topic = new ResourcePattern(ResourceType.TOPIC, args[3], PatternType.LITERAL);
        return Arrays.stream(args[4].split(","))
            .map(AclOperation::fromString)
            .map(operation -> new AccessControlEntry("User:" + args[2], "*", operation, AclPermissionType.ALLOW))
            .map(entry -> new AclBinding(topic, entry))
            .toList();
    }

    static void elect(Admin admin, String topic) throws Exception {
        int count = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
        Set<TopicPartition> partitions =
            IntStream.range(0, count).mapToObj(number -> new TopicPartition(topic, number)).collect(Collectors.toSet());
        var elected = admin.electLeaders(ElectionType.UNCLEAN, partitions).partitions().get();
        for (var entry : elected.entrySet()) {
            if (entry.getValue().isPresent()) {
                System.err.println(entry.getKey() + ": " + entry.getValue().get());
            }
        }
    }
}
