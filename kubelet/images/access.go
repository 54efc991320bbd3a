package images

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	dockerref "github.com/distribution/reference"
	"github.com/samber/lo"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/credentialprovider"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"

	"flyball.dev/internal/atomicfile"
)

// lockStripes is how many images can be checked in the records at once.
const lockStripes = 16

// AccessConfig configures an Access.
type AccessConfig struct {
	// Dir is the kubelet's root. The records lie in its folder image_manager, as upstream's do.
	Dir string
	// Policy is one of upstream's four imagePullCredentialsVerificationPolicies;
	// NeverVerifyPreloadedImages if empty.
	Policy string
	// Allowlist names images that are for all Pods, for the policy NeverVerifyAllowlistedImages.
	Allowlist []string
	Images    runtimeapi.ImageServiceClient
}

// Access decides which Pods may use an image that is on the node: those with the credentials that
// it was pulled with (KEP-2535). Upstream's pullmanager keeps records of pulls on disk, since
// images outlive a restart. An image without a record was imported or preloaded. A nil *Access
// allows all.
//
// Access adds what pullmanager lacks: an image that was imported under one name and pulled under
// another, an image that a failed pull has stored, and the order of names on the disk.
type Access struct {
	records pullmanager.ImagePullManager
	files   pullmanager.PullRecordsAccessor // of records
	policy  pullmanager.ImagePullPolicyEnforcer
	intents string // directory

	mu sync.Mutex
	// running counts the pulls that run, begun all that ever began.
	running, begun int
}

// NewAccess reads the records of an earlier Access. An image that is present although its pull was
// interrupted by the end of the process must be pulled again.
func NewAccess(ctx context.Context, cfg AccessConfig) (*Access, error) {
	policy := kubeletconfig.ImagePullCredentialsVerificationPolicy(cfg.Policy)
	policy = cmp.Or(policy, kubeletconfig.NeverVerifyPreloadedImages)
	enforcer, err := pullmanager.NewImagePullCredentialVerificationPolicy(policy, cfg.Allowlist)
	if err != nil {
		return nil, fmt.Errorf("reading the policy for images that are present: %w", err)
	}
	files, err := pullmanager.NewFSPullRecordsAccessor(klog.FromContext(ctx), cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the records of image pulls in %s: %w", cfg.Dir, err)
	}
	if err := settle(ctx, files, cfg.Images); err != nil {
		return nil, err
	}
	// It needs no image service, which it would use for intents: there are none.
	records, err := pullmanager.NewImagePullManager(ctx, files, enforcer, nil, lockStripes)
	if err != nil {
		return nil, fmt.Errorf("reading the records of image pulls in %s: %w", cfg.Dir, err)
	}
	intents := filepath.Join(cfg.Dir, "image_manager", "pulling")
	return &Access{records: records, files: files, policy: enforcer, intents: intents}, nil
}

// settle turns the intents of pulls that were interrupted into records, if the image is there, and
// removes them.
func settle(ctx context.Context, files pullmanager.PullRecordsAccessor, service runtimeapi.ImageServiceClient) error {
	log := klog.FromContext(ctx)
	intents, err := files.ListImagePullIntents()
	if err != nil { // an intent that cannot be read forbids its image until a pull settles it
		log.Error(err, "Cannot read the intents of image pulls")
	}
	if len(intents) == 0 {
		return nil
	}
	list, err := service.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return fmt.Errorf("listing images to settle interrupted pulls: %w", err)
	}
	for _, intent := range intents {
		for _, image := range list.GetImages() {
			if named(image, intent.Image) {
				if err := recordInterrupted(log, files, intent.Image, image.Id); err != nil {
					return err
				}
			}
		}
		if err := files.DeleteImagePullIntent(log, intent.Image); err != nil {
			return fmt.Errorf("removing the record of an interrupted pull of image %s: %w", intent.Image, err)
		}
	}
	return nil
}

// recordInterrupted records the image under its name, without credentials. Upstream's record of an
// interrupted pull has no name, as if the image had been imported under this name and pulled under
// another. pullmanager cannot write it, since it ignores empty credentials when it merges records.
func recordInterrupted(log klog.Logger, files pullmanager.PullRecordsAccessor, name, id string) error {
	record, _, err := files.GetImagePulledRecord(id)
	if err != nil || record == nil {
		record = &kubeletconfig.ImagePulledRecord{ImageRef: id}
	}
	if _, known := record.CredentialMapping[repository(name)]; known {
		return nil
	}
	none := map[string]kubeletconfig.ImagePullCredentials{repository(name): {}}
	record.CredentialMapping = lo.Assign(record.CredentialMapping, none)
	record.LastUpdatedTime = metav1.Now()
	if err := files.WriteImagePulledRecord(log, record); err != nil {
		return fmt.Errorf("recording that image %s was pulled: %w", name, err)
	}
	return nil
}

// named reports whether the runtime has the image under this canonical name.
func named(image *runtimeapi.Image, name string) bool {
	return slices.Contains(image.GetRepoTags(), name) || slices.Contains(image.GetRepoDigests(), name)
}

// repository is a canonical name without tag and digest, the key of credentials in a record.
func repository(name string) string {
	ref, err := dockerref.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return ref.Name()
}

// canonical is the name under which the runtime lists an image and pulls are recorded: one Pod may
// have busybox, another docker.io/library/busybox:latest.
func canonical(name string) string {
	ref, err := dockerref.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return ref.String()
}

// allows reports whether a Pod with the credentials may use an image of the runtime without a pull.
// specified is its name in the Pod's spec. Credentials that cannot be read allow nothing; the pull
// that follows reports their error.
func (a *Access) allows(
	ctx context.Context, specified, name string, image *runtimeapi.Image, credentials pullmanager.GetPodCredentials,
) bool {
	// An allowlist has names as in specs. With true, the other policies require the records.
	if a == nil || !a.policy.RequireCredentialVerificationForImage(specified, true) {
		return true
	}
	name = canonical(name)
	if a.imported(name, image) && !a.policy.RequireCredentialVerificationForImage(name, false) {
		return true
	}
	must, err := a.records.MustAttemptImagePull(ctx, name, image.Id, credentials)
	return err == nil && !must
}

// imported reports whether the image was pulled under another name and never under this one. An
// image has many names and one record; upstream's policies treat each name as pulled.
func (a *Access) imported(name string, image *runtimeapi.Image) bool {
	// An ID, or a short name that the runtime completes, finds images that were pulled under
	// another name.
	if !named(image, name) {
		return false
	}
	// The intent before the record: a pull that ends in between has written the record first.
	if intended, err := a.files.ImagePullIntentExists(name); err != nil || intended {
		return false
	}
	record, _, err := a.files.GetImagePulledRecord(image.Id)
	if err != nil || record == nil {
		return false // records decides
	}
	_, pulled := record.CredentialMapping[repository(name)]
	return !pulled
}

// pulling records that the image is about to be pulled. Unless it fails, one of pulled, failed and
// unknown must follow.
func (a *Access) pulling(ctx context.Context, name string) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.records.RecordPullIntent(klog.FromContext(ctx), canonical(name)); err != nil {
		return fmt.Errorf("recording that image %q is being pulled, without which all Pods might use it: %w", name, err)
	}
	// The runtime stores images durably, and one without a record is for all Pods. From here on the
	// intent or a record survives a loss of power: file systems keep the order of renames.
	if err := atomicfile.SyncDir(a.intents); err != nil {
		a.records.RecordImagePullFailed(ctx, canonical(name))
		return fmt.Errorf("recording that image %q is being pulled: %w", name, err)
	}
	a.running++
	a.begun++
	return nil
}

// ended records the end of a pull.
func (a *Access) ended(record func()) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	record()
}

// pulled records the ID of the image and the credentials that the registry accepted, nil for none.
func (a *Access) pulled(ctx context.Context, name, id string, with *credentialprovider.TrackedAuthConfig) {
	a.ended(func() { a.records.RecordImagePulled(ctx, canonical(name), id, new(recorded(with))) })
}

// failed records that a pull failed. id is the image that it stored nevertheless, which must be
// pulled again; "" if it stored none.
func (a *Access) failed(ctx context.Context, name, id string) {
	a.ended(func() {
		log := klog.FromContext(ctx)
		if id != "" {
			if err := recordInterrupted(log, a.files, canonical(name), id); err != nil {
				log.Error(err, "Cannot record a failed pull: the image needs another pull or a restart of the kubelet",
					"image", name)
				return // the intent stays
			}
		}
		a.records.RecordImagePullFailed(ctx, canonical(name))
	})
}

// unknown ends a pull that may have stored an image. Its intent stays, which forbids the image to
// Pods without a record, until the next start settles it.
func (a *Access) unknown() { a.ended(func() {}) }

// Prune removes the records of images whose IDs list does not return. A pull that overlaps with the
// list may restore an image, so that Prune does nothing then.
func (a *Access) Prune(ctx context.Context, list func() ([]string, error)) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	since, running, begun := time.Now(), a.running, a.begun
	a.mu.Unlock()
	ids, err := list()
	if err != nil {
		return err
	}
	a.mu.Lock() // pulls begin under it
	defer a.mu.Unlock()
	if running == 0 && a.begun == begun {
		a.records.PruneUnknownRecords(ctx, ids, since)
	}
	return nil
}

// recorded converts credentials for a record: their Secret and their hash. Without credentials, or
// with the node's own, an image is for all Pods.
func recorded(c *credentialprovider.TrackedAuthConfig) kubeletconfig.ImagePullCredentials {
	if c == nil || c.Source == nil {
		return kubeletconfig.ImagePullCredentials{NodePodsAccessible: true}
	} else if s := c.Source.Secret; s != nil {
		return kubeletconfig.ImagePullCredentials{KubernetesSecrets: []kubeletconfig.ImagePullSecret{
			{UID: s.UID, Namespace: s.Namespace, Name: s.Name, CredentialHash: c.AuthConfigHash},
		}}
	}
	return kubeletconfig.ImagePullCredentials{}
}
